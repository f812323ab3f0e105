"""What the pipelines on encoders share: texts to encodings, encodings to the model's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.encodings import Encoding, truncated
from edgellm.errors import OptionError
from edgellm.pipelines.base import Pipeline
from edgellm.pipelines.scores import FloatArray
from edgellm.pipelines.truncation import TruncationChoice, truncation_of


class EncoderPipeline(Pipeline):
    model: Any

    @property
    def labels(self) -> Mapping[int, str]:
        """What the model's outputs stand for, by number."""
        found: Mapping[int, str] = self.model.labels
        return found

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
        truncation: TruncationChoice | None = False,
        max_length: int | None = None,
    ) -> Encoding:
        """`truncation`: False cuts nothing, True is "longest_first". `max_length`: None is the model's most tokens."""
        encoding = self.tokenizer.encoding(text, pair)
        how = truncation_of(truncation)
        if how is None:
            return encoding
        if max_length is not None and (type(max_length) is not int or max_length < 1):
            raise OptionError(f"max_length is {max_length!r}, expected a whole number from 1")
        return truncated(encoding, self.special.max_length if max_length is None else max_length, how)
