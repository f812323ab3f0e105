"""The float decoder, streamed: one layer in memory at a time, the embedding and the head by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgellm.types import FloatArray, TokenArray
from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.blocks.build import Material
from edgellm_export.float_run.layers import FLOAT, FloatLayer, States, Step
from edgellm_export.float_run.pieces import Feeds, run_layer
from edgellm_export.float_run.vocabulary import RunWithHead
from edgellm_export.graphs.decoder import PRESENT, build_layer, decoder_inputs
from edgellm_export.graphs.parts import SIDES


@dataclass(frozen=True)
class DecoderRun(RunWithHead[DecoderFamily]):
    """A float32 run of the checkpoint over whole sequences of tokens."""

    @property
    def num_layers(self) -> int:
        return self.family.shape.num_layers

    def through(self, texts: Sequence[TokenArray], step: Step) -> list[FloatArray]:
        feeds = [_feeds(sequence) for sequence in texts]
        states = self.embedded(decoder_inputs, self.family.embed, texts, feeds)
        for index in range(self.num_layers):
            states = step(FloatLayer(index, partial(build_layer, self.family, index), self.tensors, feeds), states)
        return states

    def cached(self, layer: FloatLayer, states: States) -> tuple[list[FloatArray], list[tuple[FloatArray, FloatArray]]]:
        """The states behind a layer, and the keys and values [num_kv_heads, length, head_dim] that it caches, one pair
        per sequence."""
        material = Material(self.tensors, FLOAT, apart=True)
        built = build_layer(self.family, layer.index, material, observe_cache=True)
        runs = run_layer(built, material, layer.fed(states)).values
        key, value = (PRESENT.format(layer.index, side) for side in SIDES)
        return [run["hidden_out"] for run in runs], [(run[key][0], run[value][0]) for run in runs]


def _feeds(sequence: TokenArray) -> Feeds:
    return {"input_ids": sequence[None], "attention_mask": np.ones((1, len(sequence)), np.int64)}
