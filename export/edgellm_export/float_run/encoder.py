"""The float encoder, streamed: one layer in memory at a time. Texts may differ in length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray
from edgellm_export.blocks.build import Material, TensorSource
from edgellm_export.float_run.layers import FLOAT, Feeds, FloatLayer, States, Step, segment_of
from edgellm_export.graphs.encoder import HeadedEncoder, build_embedding, build_head, build_layer

Outputs = dict[str, FloatArray]


@dataclass(frozen=True)
class EncoderRun:
    """A float32 run of the checkpoint over encoded texts."""

    model: HeadedEncoder
    tensors: TensorSource

    def through(self, texts: Sequence[Encoding], step: Step) -> list[FloatArray]:
        feeds = [_feeds(text) for text in texts]
        segment = segment_of(build_embedding(self.model, Material(self.tensors, FLOAT)))
        states = [segment.run(fed) for fed in feeds]
        for index in range(self.num_layers):
            build = partial(build_layer, self.model, index)
            states = step(FloatLayer(index, build, self.tensors, feeds, adds=False), states)
        return states

    @property
    def num_layers(self) -> int:
        return self.model.family.config.num_layers

    def outputs(self, texts: Sequence[Encoding], states: States) -> Iterator[Outputs]:
        """The model's outputs by name for each text's states behind the last layer, without the axis of the batch."""
        segment = segment_of(build_head(self.model, Material(self.tensors, FLOAT)))
        for text, hidden in zip(texts, states, strict=True):
            run = segment.run_all({**_feeds(text), "hidden": hidden})
            yield {name: array[0] for name, array in run.items()}


def _feeds(encoding: Encoding) -> Feeds:
    """A batch of one."""
    return {
        "input_ids": encoding.ids[None],
        "attention_mask": np.ones((1, len(encoding)), np.int64),
        "token_type_ids": encoding.type_ids[None],
    }
