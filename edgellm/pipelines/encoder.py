"""What the pipelines on encoders share: texts to encodings, encodings to the model's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import OptionError
from edgellm.models.encoder import EncoderModel
from edgellm.pipelines.base import Pipeline, TruncationChoice, check_counts, truncation_of
from edgellm.pipelines.scores import FloatArray
from edgellm.text.encodings import Encoding, truncated

TOKENIZER_OPTIONS = ("truncation", "max_length", "padding")  # the last has no effect


class EncoderPipeline(Pipeline):
    model: EncoderModel

    @property
    def labels(self) -> Mapping[int, str]:
        """The names of what the model's outputs stand for, by number."""
        return self.model.labels

    def logits(self, encodings: Sequence[Encoding]) -> list[FloatArray]:
        """What the model gives for each input: [tokens, vocab], [tokens, labels], [labels] or [tokens, hidden]."""
        return [result.logits for result in self.model.run(encodings)]

    def span_logits(self, encodings: Sequence[Encoding]) -> list[tuple[FloatArray, FloatArray]]:
        """For each input, how well each token begins an answer and how well it ends one: [tokens] each."""
        return [(result.start, result.end) for result in self.model.run(encodings)]

    def encode(
        self,
        text: str,
        pair: str | None = None,
        *,
        truncation: TruncationChoice | None = None,
        max_length: int | None = None,
    ) -> Encoding:
        """The text, and its pair, as the model reads them. `truncation`: False cuts nothing, True is "longest_first",
        None is True if there is a `max_length`, whose default is the model's most tokens. Raises OptionError."""
        if max_length is not None:
            check_counts(max_length=max_length)
        how = truncation_of(max_length is not None if truncation is None else truncation)
        encoding = self.tokenizer.encoding(text, pair)
        if how is None:
            return encoding
        length = self.special.max_length if max_length is None else max_length
        return truncated(encoding, length, how, at=self.tokenizer.truncation_side)


def cutting(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of `encode` among a tokenizer's. Raises OptionError for those that are none."""
    wrong = next((name for name in kwargs or () if name not in TOKENIZER_OPTIONS), None)
    if wrong is not None:
        raise OptionError(f"tokenizers have no option {wrong!r} here; known: {', '.join(TOKENIZER_OPTIONS)}")
    return {name: value for name, value in (kwargs or {}).items() if name != "padding"}
