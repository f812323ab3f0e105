"""Sources of an encoder-decoder, encoded: the keys and values that its decoder's cross-attention reads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from edgellm.ort.binding import AnyArray, array_of
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Array, IntArray


@dataclass(frozen=True)
class Encoded:
    """Encoded sources, as `SourceEncoder.known_by` names them. mask: [sources, longest] int64, ones for tokens.
    tensors: by the decoder's input, the keys and values of a layer, [sources, heads, longest, head_dim]."""

    sources: tuple[Hashable, ...]
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

    def known_by(self, sources: Sequence[Array]) -> tuple[Hashable, ...]:
        """What tells sources [length] from others."""
        return tuple(tuple(source.tolist()) for source in sources)

    def run(self, sources: Sequence[Array]) -> Encoded:
        longest = max(map(len, sources))
        ids, mask = np.zeros((2, len(sources), longest), np.int64)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
            mask[row, : len(source)] = 1
        tensors = self._tensors({"input_ids": ids, "attention_mask": mask})
        return Encoded(self.known_by(sources), mask, tensors)

    def _tensors(self, inputs: Mapping[str, Array]) -> dict[str, AnyArray]:
        binding = self._loaded.bind()  # a used one would want outputs of the same shape again
        for name, array in inputs.items():
            binding.input(name, array)
        for present, _ in self._names:
            binding.new_output(present, self._loaded.device)
        binding.run()
        return {past: binding.fetch_device(present) for present, past in self._names}


class FeatureEncoder(SourceEncoder):
    """The same for features of speech [mel_bins, frames], which all have the same size."""

    def known_by(self, sources: Sequence[Array]) -> tuple[Hashable, ...]:
        return tuple(sha256(source.tobytes()).digest() for source in sources)

    def run(self, sources: Sequence[Array]) -> Encoded:
        tensors = self._tensors({"input_features": np.stack(sources).astype(np.float32, copy=False)})
        positions = next(iter(tensors.values())).shape[2]
        return Encoded(self.known_by(sources), np.ones((len(sources), positions), np.int64), tensors)
