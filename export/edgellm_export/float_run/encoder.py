"""The float encoder, streamed: one layer in memory at a time, the embedding by rows. Sequences may differ in length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.system.threads import usable_cores
from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray
from edgellm_export.blocks.build import TensorSource
from edgellm_export.blocks.channels import ChannelMoves
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.float_run.decoder import ObservedLinear
from edgellm_export.float_run.segments import DataFile, Segment
from edgellm_export.graphs.encoder import EncoderModel, build_embedding, build_head, build_layer
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.quantize import WeightScheme, scheme_for

Outputs = dict[str, FloatArray]
FLOAT = scheme_for("fp32", "cpu")


@dataclass(frozen=True)
class EncoderRun:
    """A float32 run of the checkpoint, step by step; states are [1, length, hidden_size] each."""

    model: EncoderModel
    tensors: TensorSource

    @property
    def num_layers(self) -> int:
        return self.model.family.config.num_layers

    def embed(self, sequences: Sequence[Encoding]) -> list[FloatArray]:
        segment = _segment(build_embedding(self.model, self.tensors, FLOAT))
        return [segment.run(feeds(s)) for s in sequences]

    def layer(self, index: int, sequences: Sequence[Encoding], states: Sequence[FloatArray]) -> list[FloatArray]:
        """The states behind layer `index`."""
        segment = _segment(build_layer(self.model, index, self.tensors, FLOAT))
        return [segment.run({**feeds(s), "hidden": h}) for s, h in zip(sequences, states, strict=True)]

    def observed_layer(
        self, index: int, sequences: Sequence[Encoding], states: Sequence[FloatArray]
    ) -> tuple[list[FloatArray], list[ObservedLinear]]:
        """`layer`, and its linear layers with what they read."""
        built = build_layer(self.model, index, self.tensors, FLOAT, observe=True)
        segment = _segment(built)
        runs = [
            {**segment.run_all({**feeds(s), "hidden": h}), "hidden": h} for s, h in zip(sequences, states, strict=True)
        ]
        read = {name: [run[name][0] for run in runs] for name in runs[0]}
        linears = [ObservedLinear(p.name, p.origin, p.into_softmax, read[str(p.x.name)]) for p in built.projections]
        return [run["hidden_out"] for run in runs], linears

    def layer_weights(self, index: int, moves: ChannelMoves) -> dict[str, LazyTensor]:
        """The matrices of the layer's linear layers by their names, as `moves` change them."""
        built = build_layer(self.model, index, self.tensors, FLOAT, moves)
        return {projection.name: projection.weight for projection in built.projections}

    def outputs(self, sequences: Sequence[Encoding], states: Sequence[FloatArray]) -> list[Outputs]:
        """The model's outputs by name for the last layer's states, without the axis of the batch."""
        segment = _segment(build_head(self.model, self.tensors, FLOAT))
        runs = [segment.run_all({**feeds(s), "hidden": h}) for s, h in zip(sequences, states, strict=True)]
        return [{name: array[0] for name, array in run.items()} for run in runs]


@dataclass(frozen=True)
class EncoderLayers:
    """Single layers of a written package, beside the float model's."""

    model: EncoderModel
    tensors: TensorSource
    scheme: WeightScheme
    moves: ChannelMoves
    data: DataFile

    def error(self, index: int, sequence: Encoding, before: FloatArray, after: FloatArray) -> float:
        """|package's layer - float layer| / |float layer|, both given the float model's input."""
        built = build_layer(self.model, index, self.tensors, self.scheme, self.moves)
        segment = Segment(built, data=self.data, threads=usable_cores())
        output = segment.run({**feeds(sequence), "hidden": before})
        return float(np.linalg.norm(output - after)) / max(float(np.linalg.norm(after)), 1e-30)


def feeds(encoding: Encoding) -> dict[str, npt.NDArray[np.generic]]:
    """A batch of one."""
    return {
        "input_ids": encoding.ids[None],
        "attention_mask": np.ones((1, len(encoding)), np.int64),
        "token_type_ids": encoding.type_ids[None],
    }


def _segment(built: BuiltGraph) -> Segment:
    return Segment(built, threads=usable_cores())
