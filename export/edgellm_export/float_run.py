"""The float model, streamed: one layer in memory at a time, the embedding and the head by rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.manifest import Manifest
from edgellm.threads import usable_cores
from edgellm_export.architectures import Architecture
from edgellm_export.build import TensorSource
from edgellm_export.decoder_graph import BuiltGraph, build_embedding, build_final_norm, build_head, build_layer
from edgellm_export.quantize import scheme_for
from edgellm_export.segments import DataFile, Segment
from edgellm_export.tensors import LazyTensor, RowSlice

FloatArray = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
VOCABULARY = ("embed_tokens.weight", "wte.weight", "lm_head.weight")


@dataclass(frozen=True)
class SelectedRows:
    """The rows `ids` of a tensor."""

    tensor: LazyTensor
    ids: Tokens

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.ids), *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        return np.concatenate([self.tensor.rows(i, i + 1) for i in self.ids[start:stop].tolist()])


@dataclass(frozen=True)
class VocabularySubset:
    """A tensor source in which the vocabulary has shrunk to `ids`."""

    tensors: TensorSource
    ids: Tokens

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        tensor = self.tensors.take(name, shape)
        return SelectedRows(tensor, self.ids) if name.endswith(VOCABULARY) else tensor


@dataclass(frozen=True)
class FloatRun:
    """A float32 run of the checkpoint. `package`: where the package's own weights are, for the errors of single
    layers."""

    architecture: Architecture
    tensors: TensorSource
    manifest: Manifest
    package: DataFile

    def hidden(
        self, sequences: Sequence[Tokens], progress: Callable[[int, int], None]
    ) -> tuple[FloatArray, list[float]]:
        """Normed hidden states of all tokens [tokens, hidden_size], and each layer's error in the package on the
        first sequence."""
        layers = self.architecture.shape.num_layers
        states, errors = self._embed(sequences), []
        for index in range(layers):
            segment = self._segment(build_layer(self.architecture, index, self.tensors, scheme_for("fp32", "cpu")))
            outputs = [segment.run(_feeds(s, h)) for s, h in zip(sequences, states, strict=True)]
            errors.append(self._layer_error(index, sequences[0], states[0], outputs[0]))
            states = outputs
            progress(index + 1, layers)
        norm = self._segment(build_final_norm(self.architecture, self.tensors, scheme_for("fp32", "cpu")))
        return np.concatenate([norm.run({"hidden": h})[0] for h in states]), errors

    def logits(self, hidden: FloatArray, start: int, stop: int) -> FloatArray:
        """Logits of the tokens `start` to `stop`: [rows, stop - start] from normed hidden states [rows,
        hidden_size]."""
        tensors = VocabularyRange(self.tensors, start, stop)
        segment = self._segment(build_head(self.architecture, tensors, scheme_for("fp32", "cpu")))
        return np.asarray(segment.run({"hidden": hidden[None]})[0])

    def _embed(self, sequences: Sequence[Tokens]) -> list[FloatArray]:
        ids = np.unique(np.concatenate(sequences))
        tensors = VocabularySubset(self.tensors, ids)
        segment = self._segment(build_embedding(self.architecture, tensors, scheme_for("fp32", "cpu")))
        return [segment.run(_feeds(np.searchsorted(ids, s), None)) for s in sequences]

    def _layer_error(self, index: int, sequence: Tokens, before: FloatArray, after: FloatArray) -> float:
        """|package's layer - float layer| / |what the float layer adds|, both given the float model's input."""
        weights = self.manifest.weights
        if weights.precision == "fp32":
            return 0.0
        scheme = scheme_for(weights.precision, self.manifest.target)
        segment = Segment(
            build_layer(self.architecture, index, self.tensors, scheme), data=self.package, threads=usable_cores()
        )
        output = segment.run(_feeds(sequence, before.astype(scheme.activation))).astype(np.float32)
        return float(np.linalg.norm(output - after)) / max(float(np.linalg.norm(after - before)), 1e-30)

    def _segment(self, built: BuiltGraph) -> Segment:
        return Segment(built, threads=usable_cores())


def _feeds(sequence: Tokens, hidden: FloatArray | None) -> dict[str, npt.NDArray[np.generic]]:
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

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        tensor = self.tensors.take(name, shape)
        return RowSlice(name, tensor, self.start, self.stop) if name.endswith(VOCABULARY) else tensor
