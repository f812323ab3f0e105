"""Embedding and head by rows: those of the tokens that a text has, then a slice of the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray, TokenArray
from edgellm_export.architectures.contract import DecoderFamily, EncoderDecoderFamily
from edgellm_export.blocks.build import Build, DecoderShape, Material, Stream, TensorSource
from edgellm_export.checkpoint.tensors import LazyTensor, PickedRows, RowSlice
from edgellm_export.float_run.divergence import SLICE, Comparison
from edgellm_export.float_run.layers import FLOAT, States, segment_of
from edgellm_export.float_run.pieces import Feeds
from edgellm_export.graphs.parts import Inputs, embedding_segment, head_segment, norm_segment
from edgellm_export.quantize import WeightScheme


@dataclass(frozen=True)
class VocabularySubset:
    """A tensor source in which the vocabulary has shrunk to `ids`. `vocabulary`: see Names; a table of fewer tokens has
    its first row for the rest."""

    tensors: TensorSource
    vocabulary: Sequence[str]
    ids: TokenArray

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        tensor = self.tensors.take(name, shape)
        if name not in self.vocabulary:
            return tensor
        return PickedRows(name, tensor, np.where(self.ids < tensor.shape[0], self.ids, 0))


@dataclass(frozen=True)
class VocabularyRange:
    """A tensor source in which the vocabulary is the tokens `start` to `stop`."""

    tensors: TensorSource
    vocabulary: Sequence[str]
    start: int
    stop: int

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        tensor = self.tensors.take(name, shape)
        return RowSlice(name, tensor, self.start, self.stop) if name in self.vocabulary else tensor


Family = TypeVar("Family", DecoderFamily, EncoderDecoderFamily)


@dataclass(frozen=True)
class RunWithHead(Generic[Family]):
    """The ends of a float run: what is before the layers and what is behind them. `ends`: how these are stored."""

    family: Family
    tensors: TensorSource
    ends: WeightScheme = FLOAT

    def embedded(
        self,
        inputs: Callable[[Build], tuple[ir.Value, Inputs]],
        embed: Callable[[Build, ir.Value, Inputs], Stream],
        sequences: Sequence[TokenArray],
        feeds: Sequence[Feeds],
        shape: DecoderShape | None = None,
    ) -> list[FloatArray]:
        """The states before the first layer. `feeds`: besides `input_ids`. `shape`: of an
        encoder, if not the family's."""
        ids, names = np.unique(np.concatenate(sequences)), self.family.names
        material = Material(VocabularySubset(self.tensors, names.vocabulary, ids), self.ends)
        segment = segment_of(embedding_segment(material, shape or self.family.shape, inputs, embed))
        return [
            np.asarray(segment.run({**fed, "input_ids": np.searchsorted(ids, sequence)[None]}), np.float32)
            for sequence, fed in zip(sequences, feeds, strict=True)
        ]

    def normed(self, states: States) -> FloatArray:
        """Hidden states of all tokens after the final norm: [tokens, hidden_size]."""
        built = norm_segment(Material(self.tensors, FLOAT), self.family.shape, self.family.final_norm)
        segment = segment_of(built)
        return np.concatenate([segment.run({"hidden": h})[0] for h in states])

    def with_ends(self, ends: WeightScheme) -> Self:
        """See FloatRun."""
        return replace(self, ends=ends)

    def distance(self, texts: Sequence[object], expected: States, found: States) -> float:
        """See FloatRun."""
        original, other, exact = self.normed(expected), self.normed(found), replace(self, ends=FLOAT)
        comparison = Comparison(np.full(len(original), -1))
        for start in range(0, self.family.shape.vocab_size, SLICE):
            stop = min(start + SLICE, self.family.shape.vocab_size)
            comparison.add(start, exact.logits(original, start, stop), self.logits(other, start, stop))
        return float(comparison.kl_divergence().mean())

    def logits(self, hidden: FloatArray, start: int, stop: int) -> FloatArray:
        """Logits of the tokens `start` to `stop`: [rows, stop - start] from normed hidden states [rows,
        hidden_size]."""
        tensors = VocabularyRange(self.tensors, self.family.names.vocabulary, start, stop)
        segment = segment_of(head_segment(Material(tensors, self.ends), self.family.shape, self.family.head))
        return np.asarray(segment.run({"hidden": np.asarray(hidden[None], self.ends.activation)})[0], np.float32)
