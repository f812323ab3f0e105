"""fill-mask: what a masked token may be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgellm.errors import InputError
from edgellm.pipelines.base import check_counts, texts_of
from edgellm.pipelines.encoder import EncoderPipeline, cutting
from edgellm.pipelines.scores import FloatArray, best, softmax
from edgellm.text.encodings import Encoding
from edgellm.types import IntArray


class FillMask(EncoderPipeline):
    """Gives [{"score", "token", "token_str", "sequence"}] for a text, the likeliest first; for a text with several
    masks such a list for each mask."""

    fits = ("fill-mask",)
    batch_size = 8

    def check(self) -> None:
        if self.special.mask is None:
            raise InputError("this package's tokenizer has no mask token, and fill-mask needs one")

    def shape(self, inputs: Any, results: list[Any], *, single: bool, given: Mapping[str, Any]) -> Any:
        return results[0] if single or len(results) == 1 else results

    def each(
        self,
        items: list[Any],
        *args: Any,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """`targets` are the only tokens to choose from. `tokenizer_kwargs` may hold `truncation` and `max_length`."""
        count = 5 if top_k is None else top_k
        check_counts(top_k=count)
        allowed = None if targets is None else self._targets(targets)
        encodings = [self.encode(text, **cutting(tokenizer_kwargs)) for text in texts_of(items)]
        for text, encoding in zip(items, encodings, strict=True):
            if self.special.mask not in encoding.ids:
                raise InputError(f"there is no mask token ({self.special.mask_text}) in {_short(text)}; put one in")
        return [
            self._filled(encoding, logits, count, allowed)
            for encoding, logits in zip(encodings, self.logits(encodings), strict=True)
        ]

    def _filled(self, encoding: Encoding, logits: FloatArray, count: int, allowed: IntArray | None) -> Any:
        masks = np.flatnonzero(encoding.ids == self.special.mask)
        rows = [
            [self._proposal(encoding, int(mask), token, score, len(masks) == 1) for token, score in found]
            for mask, found in zip(masks, candidates(logits[masks], count, allowed), strict=True)
        ]
        return rows[0] if len(rows) == 1 else rows

    def _proposal(self, encoding: Encoding, mask: int, token: int, score: float, single: bool) -> dict[str, Any]:
        """One token in the place of a mask. With several masks, special tokens stay in the sequence: the other masks
        are some."""
        ids = encoding.ids.copy()
        ids[mask] = token
        ids = ids[ids != self.special.pad] if self.special.pad is not None else ids
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token], skip_special_tokens=False),
            "sequence": self.tokenizer.decode(ids.tolist(), skip_special_tokens=single),
        }

    def _targets(self, targets: str | Sequence[str]) -> IntArray:
        """The ids of the target words; a word that is no token of the vocabulary has that of its first token."""
        found = []
        for target in texts_of([targets] if isinstance(targets, str) else targets):
            token = self.tokenizer.id_of(target)
            if token is None:
                tokens = self.tokenizer.encode(target, add_special_tokens=False)
                token = int(tokens[0]) if len(tokens) else None
                instead = "is left out" if token is None else f"{self.tokenizer.token_of(token)!r} is taken instead"
                warnings.warn(f"the target {target!r} is not in the vocabulary: {instead}", stacklevel=2)
            if token is not None:
                found.append(token)
        if not found:
            raise InputError(f"targets is {targets!r}, expected at least one word that the vocabulary has")
        return np.unique(np.array(found, np.int64))


def candidates(logits: FloatArray, count: int, allowed: IntArray | None = None) -> list[list[tuple[int, float]]]:
    """For each mask of logits [masks, vocab], the `count` likeliest tokens, among those in `allowed` if it is given,
    with their probabilities among all tokens."""
    rows = []
    for probabilities in softmax(logits):
        of = probabilities if allowed is None else probabilities[allowed]
        places = best(of, count)
        tokens = places if allowed is None else allowed[places]
        rows.append([(int(token), float(of[place])) for token, place in zip(tokens, places, strict=True)])
    return rows


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
