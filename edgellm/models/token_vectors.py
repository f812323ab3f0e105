"""What an embedding model such as BGE-M3 gives for the tokens of a text: how much each matters, and its vector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from edgellm.types import FloatArray, IntArray


@dataclass(frozen=True)
class TokenVectors:
    """Of the tokens of a text. `lexical_weights`: how much each token id matters, the most where it is there several
    times; without special tokens and those that do not matter. `vectors`: [tokens - 1, dim] float32, of unit length, of
    all tokens behind the first, which stands for the text. None where the model has no such layer."""

    lexical_weights: Mapping[int, float] | None
    vectors: FloatArray | None


def token_vectors(ids: IntArray, outputs: Mapping[str, FloatArray], special: Collection[int]) -> TokenVectors:
    """ids: [tokens]. outputs: sparse_weights [tokens], colbert_vectors [tokens, dim], or one of them."""
    weights: dict[int, float] | None = None
    if "sparse_weights" in outputs:
        weights = {}
        for token, weight in zip(ids.tolist(), outputs["sparse_weights"].tolist(), strict=True):
            if weight > 0 and token not in special:
                weights[token] = max(weight, weights.get(token, 0.0))
    vectors = outputs.get("colbert_vectors")
    return TokenVectors(weights, None if vectors is None else unit(vectors[1:]))


def unit(vectors: FloatArray) -> FloatArray:
    """[..., dim], each of length 1, zeros as they are."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)
