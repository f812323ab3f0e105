"""text-classification, also sentiment-analysis: a label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edgellm.errors import InputError, OptionError
from edgellm.pipelines.base import TruncationChoice
from edgellm.pipelines.encoder import EncoderPipeline
from edgellm.pipelines.scores import FloatArray, sigmoid, softmax
from edgellm.text.encodings import Encoding
from edgellm.text.tokenizer import check_text

Function = Literal["sigmoid", "softmax", "none"]
UNSET = ""  # None is a value of top_k: all labels


class TextClassification(EncoderPipeline):
    """Gives [{"label", "score"}] for a text; the same without the list for each of a list of texts. With `top_k` (None:
    all), always a list of labels, the likeliest first. A pair of texts is {"text": ..., "text_pair": ...}."""

    fits = ("text-classification",)

    def shape(self, inputs: Any, results: list[Any], *, single: bool, given: Mapping[str, Any]) -> Any:
        if isinstance(inputs, str) and "top_k" not in given:
            return results
        return super().shape(inputs, results, single=single, given=given)

    def each(
        self,
        items: list[Any],
        *args: Any,
        top_k: int | str | None = UNSET,
        function_to_apply: Function | None = None,
        return_all_scores: bool | None = None,
        truncation: TruncationChoice | None = None,
        max_length: int | None = None,
        padding: object = None,
    ) -> list[Any]:
        """`function_to_apply` is softmax by default, sigmoid for a single label and for problems with several right
        labels, nothing for regressions. `return_all_scores` is the older spelling of `top_k=None`, in the order of the
        labels. `padding` has no effect."""
        function = self._function(function_to_apply)
        encodings = [self._encode(item, truncation, max_length) for item in items]
        scores = [apply(function, logits) for logits in self.logits(encodings)]
        if top_k == UNSET:
            every = self.config.get("return_all_scores") if return_all_scores is None else return_all_scores
            return [labelled(row, self.labels) if every else ranked(row, self.labels)[0] for row in scores]
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise OptionError(f"top_k is {top_k!r}, expected a whole number from 1, or None for all labels")
        return [ranked(row, self.labels)[:top_k] for row in scores]

    def _encode(self, item: Any, truncation: TruncationChoice | None, max_length: int | None) -> Encoding:
        if isinstance(item, Mapping):
            if not {"text"} <= {*item} <= {"text", "text_pair"}:
                raise InputError(
                    f'a pair is {{"text": ..., "text_pair": ...}}, found the keys {", ".join(map(str, item))}'
                )
            text, pair = item["text"], item.get("text_pair")
        else:
            text, pair = item, None
        check_text(text)
        return self.encode(text, pair, truncation=truncation, max_length=max_length)

    def _function(self, asked: str | None) -> str:
        if asked is None:
            return usual_function(self.model.manifest.model.problem_type, len(self.labels))
        if str(asked).lower() not in ("sigmoid", "softmax", "none"):
            raise OptionError(f"function_to_apply is {asked!r}, expected 'sigmoid', 'softmax' or 'none'")
        return str(asked).lower()


def usual_function(problem_type: str | None, labels: int) -> str:
    if problem_type == "regression":
        return "none"
    if problem_type == "multi_label_classification" or labels == 1:
        return "sigmoid"
    return "softmax"


def apply(function: str, logits: FloatArray) -> FloatArray:
    """Scores [labels] out of logits [labels]."""
    if function == "sigmoid":
        return sigmoid(logits)
    return softmax(logits) if function == "softmax" else logits


def labelled(scores: FloatArray, labels: Mapping[int, str]) -> list[dict[str, Any]]:
    return [{"label": labels[i], "score": float(score)} for i, score in enumerate(scores)]


def ranked(scores: FloatArray, labels: Mapping[int, str]) -> list[dict[str, Any]]:
    """The labels with the highest score first, equals in their own order."""
    return sorted(labelled(scores, labels), key=lambda entry: -entry["score"])
