"""Sources of an encoder-decoder, encoded: the keys and values that its decoder's cross-attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.ort.binding import AnyArray, array_of
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import IntArray, TokenArray


@dataclass(frozen=True)
class Encoded:
    """Encoded sources. mask: [sources, longest] int64, ones for tokens. tensors: by the decoder's input, the keys and
    values of a layer, [sources, heads, longest, head_dim]."""

    sources: tuple[tuple[int, ...], ...]
    mask: IntArray
    tensors: dict[str, AnyArray]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def take(self, kept: Sequence[int]) -> Encoded:
        """Some of the sources, in this order."""
        if list(kept) == list(range(len(self.sources))):
            return self
        tensors: dict[str, AnyArray] = {
            name: np.ascontiguousarray(array_of(tensor)[list(kept)]) for name, tensor in self.tensors.items()
        }
        return Encoded(tuple(self.sources[i] for i in kept), np.ascontiguousarray(self.mask[list(kept)]), tensors)


NOTHING = Encoded((), np.empty((0, 0), np.int64), {})


class SourceEncoder:
    """The encoder's graph."""

    def __init__(self, loaded: LoadedGraph, manifest: Manifest[EncoderDecoderFacts]) -> None:
        self._loaded = loaded
        self._names = manifest.model.cross_cache.names()

    def run(self, sources: tuple[tuple[int, ...], ...]) -> Encoded:
        longest = max(map(len, sources))
        ids, mask = np.zeros((2, len(sources), longest), np.int64)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
            mask[row, : len(source)] = 1
        binding = self._loaded.bind()  # a used one would want outputs of the same shape again
        binding.input("input_ids", ids)
        binding.input("attention_mask", mask)
        for present, _ in self._names:
            binding.new_output(present, self._loaded.device)
        binding.run()
        tensors: dict[str, AnyArray] = {past: binding.fetch_device(present) for present, past in self._names}
        return Encoded(sources, mask, tensors)


def ids_of(sources: Sequence[TokenArray]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(source.tolist()) for source in sources)
