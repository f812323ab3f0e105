"""The float decoder, streamed: one layer in memory at a time, the embedding and the head by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgellm.types import FloatArray, TokenArray
from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.blocks.build import Material
from edgellm_export.float_run.layers import FLOAT, Feeds, FloatLayer, States, Step, segment_of
from edgellm_export.float_run.vocabulary import RunWithHead
from edgellm_export.graphs.decoder import build_layer, decoder_inputs


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
        built = build_layer(self.family, layer.index, Material(self.tensors, FLOAT), observe_cache=True)
        segment = segment_of(built)
        runs = [list(segment.run_all(fed).values()) for fed in layer.fed(states)]
        return [run[0] for run in runs], [(run[1][0], run[2][0]) for run in runs]


def _feeds(sequence: TokenArray) -> Feeds:
    return {"input_ids": sequence[None], "attention_mask": np.ones((1, len(sequence)), np.int64)}
