"""zero-shot-classification: labels of the caller's own, with a model that knows whether a text entails a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgellm.errors import InputError, OptionError, TaskError
from edgellm.pipelines.base import texts_of
from edgellm.pipelines.encoder import EncoderPipeline
from edgellm.pipelines.scores import FloatArray, softmax
from edgellm.text.encodings import Encoding


class ZeroShotClassification(EncoderPipeline):
    """Gives {"sequence", "labels", "scores"} for a text, the likeliest label first."""

    fits = ("text-classification",)
    batch_size = 8
    input_name = "sequences"

    def read(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The labels may be the second argument."""
        if len(args) == 2 and "candidate_labels" not in options:
            return args[0], {**options, "candidate_labels": args[1]}
        return super().read(args, options)

    def check(self) -> None:
        if len(self.labels) < 2:
            raise TaskError(
                f"{self.task} needs a model with labels such as entailment and contradiction; {self._has()}"
            )
        if entailment(self.labels) is None:
            raise TaskError(
                f"{self.task} needs a model with a label that begins with 'entail'; {self._has()}. If one of these "
                "means that, call it so under id2label in the checkpoint's config.json and export it again"
            )

    def each(
        self,
        items: list[Any],
        *args: Any,
        candidate_labels: str | Sequence[str] = (),
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
    ) -> list[dict[str, Any]]:
        """`candidate_labels` are a list, or a text with commas. With `multi_label` each is right or not by itself."""
        labels = labels_of(candidate_labels)
        hypotheses = hypotheses_for(labels, hypothesis_template)
        encodings = [self._encode(text, hypothesis) for text in texts_of(items) for hypothesis in hypotheses]
        logits = np.stack(self.logits(encodings)) if encodings else np.zeros((0, len(self.labels)), np.float32)
        which = entailment(self.labels)
        assert which is not None
        results = []
        for text, rows in zip(items, logits.reshape(len(items), len(labels), -1), strict=True):
            scores = entailed(rows, which, independent=multi_label or len(labels) == 1)
            order = scores.argsort()[::-1]
            results.append(
                {"sequence": text, "labels": [labels[i] for i in order], "scores": [float(scores[i]) for i in order]}
            )
        return results

    def _encode(self, text: str, hypothesis: str) -> Encoding:
        """The text is cut where both are too long; a hypothesis that leaves no room for it is an error of the model."""
        if not text:
            raise InputError(f"{self.task} needs a text, found an empty one")
        try:
            return self.encode(text, hypothesis, truncation="only_first")
        except OptionError:
            return self.encode(text, hypothesis)

    def _has(self) -> str:
        return f"this package's labels are {', '.join(self.labels.values())}"


def labels_of(candidates: str | Sequence[str]) -> list[str]:
    """The labels as a list. Raises InputError where there is none."""
    if isinstance(candidates, str):
        candidates = [label.strip() for label in candidates.split(",") if label.strip()]
    labels = texts_of(candidates)
    if not labels:
        raise InputError("candidate_labels is empty or missing, expected at least one label")
    return labels


def hypotheses_for(labels: Sequence[str], template: str) -> list[str]:
    """A sentence for each label. Raises OptionError for a template without a place for the label."""
    try:
        sentences = [template.format(label) for label in labels]
    except (LookupError, ValueError, AttributeError) as error:
        raise OptionError(f"hypothesis_template is {template!r}, which cannot be filled in: {error}") from error
    if sentences[0] == template:
        raise OptionError(f"hypothesis_template is {template!r}, expected a text with {{}} where the label goes")
    return sentences


def entailment(labels: Mapping[int, str]) -> int | None:
    """The number of the label for "the text entails the hypothesis"."""
    return next((i for i, label in labels.items() if label.lower().startswith("entail")), None)


def entailed(logits: FloatArray, entailment: int, *, independent: bool) -> FloatArray:
    """The probability [candidates] of each candidate by logits [candidates, labels]: among them all or, if they are
    `independent`, against its own contradiction (the first label, or the last if the first is entailment)."""
    if not independent:
        return softmax(logits[:, entailment])
    contradiction = -1 if entailment == 0 else 0
    return softmax(logits[:, [contradiction, entailment]])[:, 1]
