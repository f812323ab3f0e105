"""feature-extraction: the hidden states of a text's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.errors import OptionError
from edgellm.pipelines.base import TruncationChoice, texts_of
from edgellm.pipelines.encoder import EncoderPipeline, cutting


class FeatureExtraction(EncoderPipeline):
    """Gives [[[float]]] for a text: a batch of one, its tokens (special ones included), their features. With
    `return_tensors` that is an array [1, tokens, hidden] float32."""

    fits = ("feature-extraction",)

    def each(
        self,
        items: list[Any],
        *args: Any,
        return_tensors: bool = False,
        truncation: TruncationChoice | None = None,
        tokenize_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """`tokenize_kwargs` may hold `truncation` and `max_length`."""
        kwargs = cutting(tokenize_kwargs)
        if truncation is not None:
            if "truncation" in kwargs:
                raise OptionError("truncation is given twice, also in tokenize_kwargs; leave one out")
            kwargs["truncation"] = truncation
        states = self.logits([self.encode(text, **kwargs) for text in texts_of(items)])
        return [state[None] if return_tensors else state[None].tolist() for state in states]
