"""The float model, streamed: one layer in memory at a time, the embedding and the head by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.system.threads import usable_cores
from edgellm.types import FloatArray, TokenArray
from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.blocks.build import CacheScales, TensorSource
from edgellm_export.blocks.channels import ChannelScales
from edgellm_export.checkpoint.tensors import LazyTensor, RowSlice, TensorView
from edgellm_export.float_run.segments import DataFile, Segment
from edgellm_export.graphs.decoder import (
    build_embedding,
    build_final_norm,
    build_head,
    build_layer,
)
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.quantize import WeightScheme, scheme_for

FLOAT = scheme_for("fp32", "cpu")


@dataclass(frozen=True)
class SelectedRows(TensorView):
    """The rows `ids` of a tensor."""

    ids: TokenArray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.ids), *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        return np.concatenate([self.tensor.rows(i, i + 1) for i in self.ids[start:stop].tolist()])


@dataclass(frozen=True)
class VocabularySubset:
    """A tensor source in which the vocabulary has shrunk to `ids`. `vocabulary`: see Names."""

    tensors: TensorSource
    ids: TokenArray
    vocabulary: Sequence[str]

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        tensor = self.tensors.take(name, shape)
        return SelectedRows(tensor, self.ids) if name in self.vocabulary else tensor


@dataclass(frozen=True)
class ObservedLinear:
    """`origin`, `into_softmax`: see edgellm_export.blocks.channels. `inputs`: [length, columns] per
    sequence."""

    name: str
    origin: str | None
    into_softmax: bool
    inputs: Sequence[FloatArray]


@dataclass(frozen=True)
class FloatRun:
    """A float32 run of the checkpoint over whole sequences, step by step; states are [1, length, hidden_size] each."""

    architecture: DecoderFamily
    tensors: TensorSource

    def embed(self, sequences: Sequence[TokenArray]) -> list[FloatArray]:
        ids = np.unique(np.concatenate(sequences))
        tensors = VocabularySubset(self.tensors, ids, self.architecture.names.vocabulary)
        segment = _segment(build_embedding(self.architecture, tensors, FLOAT))
        return [segment.run(_feeds(np.searchsorted(ids, s), None)) for s in sequences]

    def layer(self, index: int, sequences: Sequence[TokenArray], states: Sequence[FloatArray]) -> list[FloatArray]:
        """The states behind layer `index`."""
        segment = _segment(build_layer(self.architecture, index, self.tensors, FLOAT))
        return [segment.run(_feeds(s, h)) for s, h in zip(sequences, states, strict=True)]

    def observed_layer(
        self, index: int, sequences: Sequence[TokenArray], states: Sequence[FloatArray]
    ) -> tuple[list[FloatArray], list[ObservedLinear]]:
        """`layer`, and its linear layers with what they read."""
        built = build_layer(self.architecture, index, self.tensors, FLOAT, observe=True)
        segment = _segment(built)
        runs = [segment.run_all(_feeds(s, h)) for s, h in zip(sequences, states, strict=True)]
        first = next(iter(runs[0]))
        read = {name: [run[name][0] for run in runs] for name in runs[0]}
        linears = [ObservedLinear(p.name, p.origin, p.into_softmax, read[str(p.x.name)]) for p in built.projections]
        return [run[first] for run in runs], linears

    def layer_weights(self, index: int, scales: ChannelScales) -> dict[str, LazyTensor]:
        """The matrices of the layer's linear layers by their names, as `scales` change them."""
        built = build_layer(self.architecture, index, self.tensors, FLOAT, scales)
        return {projection.name: projection.weight for projection in built.projections}

    def cached_layer(
        self, index: int, sequences: Sequence[TokenArray], states: Sequence[FloatArray]
    ) -> tuple[list[FloatArray], list[tuple[FloatArray, FloatArray]]]:
        """`layer`, and the keys and values [num_kv_heads, length, head_dim] that it caches, one pair per sequence."""
        segment = _segment(build_layer(self.architecture, index, self.tensors, FLOAT, observe_cache=True))
        runs = [list(segment.run_all(_feeds(s, h)).values()) for s, h in zip(sequences, states, strict=True)]
        return [run[0] for run in runs], [(run[1][0], run[2][0]) for run in runs]

    def normed(self, states: Sequence[FloatArray]) -> FloatArray:
        """Hidden states of all tokens after the final norm: [tokens, hidden_size]."""
        segment = _segment(build_final_norm(self.architecture, self.tensors, FLOAT))
        return np.concatenate([segment.run({"hidden": h})[0] for h in states])

    def logits(self, hidden: FloatArray, start: int, stop: int) -> FloatArray:
        """Logits of the tokens `start` to `stop`: [rows, stop - start] from normed hidden states [rows,
        hidden_size]."""
        tensors = VocabularyRange(self.tensors, start, stop, self.architecture.names.vocabulary)
        segment = _segment(build_head(self.architecture, tensors, FLOAT))
        return np.asarray(segment.run({"hidden": hidden[None]})[0])


@dataclass(frozen=True)
class PackageLayers:
    """Single layers of a written package, beside the float model's."""

    architecture: DecoderFamily
    tensors: TensorSource
    scheme: WeightScheme
    scales: ChannelScales
    cache_scales: Sequence[CacheScales]  # empty: the cache has the activations' type
    data: DataFile

    def error(self, index: int, sequence: TokenArray, before: FloatArray, after: FloatArray) -> float:
        """|package's layer - float layer| / |what the float layer adds|, both given the float model's input."""
        cache = self.cache_scales[index] if self.cache_scales else None
        built = build_layer(self.architecture, index, self.tensors, self.scheme, self.scales, cache)
        segment = Segment(built, data=self.data, threads=usable_cores())
        output = segment.run(_feeds(sequence, before.astype(self.scheme.activation))).astype(np.float32)
        return float(np.linalg.norm(output - after)) / max(float(np.linalg.norm(after - before)), 1e-30)


def _segment(built: BuiltGraph) -> Segment:
    return Segment(built, threads=usable_cores())


def _feeds(sequence: TokenArray, hidden: FloatArray | None) -> dict[str, npt.NDArray[np.generic]]:
    feeds: dict[str, npt.NDArray[np.generic]] = {
        "input_ids": sequence[None],
        "attention_mask": np.ones((1, len(sequence)), np.int64),
    }
    return feeds if hidden is None else {**feeds, "hidden": hidden}


@dataclass(frozen=True)
class VocabularyRange:
    """A tensor source in which the vocabulary is the tokens `start` to `stop`."""

    tensors: TensorSource
    start: int
    stop: int
    vocabulary: Sequence[str]

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        tensor = self.tensors.take(name, shape)
        return RowSlice(name, tensor, self.start, self.stop) if name in self.vocabulary else tensor
