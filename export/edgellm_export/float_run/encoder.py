"""The float encoder, streamed: one layer in memory at a time. Texts may differ in length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray
from edgellm_export.blocks.build import Material, TensorSource
from edgellm_export.float_run.layers import FLOAT, FloatLayer, States, Step, segment_of
from edgellm_export.float_run.pieces import Feeds
from edgellm_export.graphs.encoder import HeadedEncoder, build_embedding, build_head, build_layer
from edgellm_export.quantize import WeightScheme

Outputs = dict[str, FloatArray]


@dataclass(frozen=True)
class EncoderRun:
    """A float32 run of the checkpoint over encoded texts. `ends`: how embeddings and head are stored."""

    model: HeadedEncoder
    tensors: TensorSource
    ends: WeightScheme = FLOAT

    def through(self, texts: Sequence[Encoding], step: Step) -> list[FloatArray]:
        feeds = [_feeds(text) for text in texts]
        segment = segment_of(build_embedding(self.model, Material(self.tensors, self.ends)))
        states = [np.asarray(segment.run(fed), np.float32) for fed in feeds]
        for index in range(self.num_layers):
            build = partial(build_layer, self.model, index)
            states = step(FloatLayer(index, build, self.tensors, feeds, adds=self.model.family.adds), states)
        return states

    @property
    def num_layers(self) -> int:
        return self.model.family.config.num_layers

    def with_ends(self, ends: WeightScheme) -> EncoderRun:
        """See FloatRun."""
        return replace(self, ends=ends)

    def distance(self, texts: Sequence[Encoding], expected: States, found: States) -> float:
        """See FloatRun."""
        wrong, size, exact = 0.0, 0.0, replace(self, ends=FLOAT)
        for right, other in zip(exact.outputs(texts, expected), self.outputs(texts, found), strict=True):
            for name, array in right.items():
                if name != "sentence_embedding" and "sentence_embedding" in right:  # on the way to it
                    continue
                wrong += float(np.square(other[name] - array, dtype=np.float64).sum())
                size += float(np.square(array, dtype=np.float64).sum())
        return float((wrong / max(size, 1e-30)) ** 0.5)

    def outputs(self, texts: Sequence[Encoding], states: States) -> Iterator[Outputs]:
        """The model's outputs by name for each text's states behind the last layer, without the axis of the batch."""
        segment = segment_of(build_head(self.model, Material(self.tensors, self.ends)))
        for text, hidden in zip(texts, states, strict=True):
            run = segment.run_all({**_feeds(text), "hidden": np.asarray(hidden, self.ends.activation)})
            yield {name: np.asarray(array[0], np.float32) for name, array in run.items()}


def _feeds(encoding: Encoding) -> Feeds:
    """A batch of one."""
    return {
        "input_ids": encoding.ids[None],
        "attention_mask": np.ones((1, len(encoding)), np.int64),
        "token_type_ids": encoding.type_ids[None],
    }
