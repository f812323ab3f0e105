"""The float encoder-decoder, streamed: one layer in memory at a time, embeddings and head by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edgellm.types import Array, FloatArray, TokenArray
from edgellm_export.architectures.contract import EncoderDecoderFamily
from edgellm_export.blocks.build import Material
from edgellm_export.float_run.layers import FLOAT, FloatLayer, States, Step, segment_of
from edgellm_export.float_run.pieces import Feeds
from edgellm_export.float_run.vocabulary import RunWithHead
from edgellm_export.graphs import encoder_decoder as graphs
from edgellm_export.graphs.parts import embedding_segment, norm_segment


@dataclass(frozen=True)
class Pair:
    """A source, and a target from its start token on: [length] each. Of speech, the source is its features [mel_bins,
    frames]."""

    source: Array
    target: TokenArray

    def __len__(self) -> int:
        return len(self.source) + len(self.target)


@dataclass(frozen=True)
class EncoderDecoderRun(RunWithHead[EncoderDecoderFamily]):
    """A float32 run of the checkpoint over whole pairs: through the encoder, then through the decoder. The projections
    of the encoder's output that a layer of the decoder reads are counted among its linear layers."""

    @property
    def num_layers(self) -> int:
        return self.family.source_layers + self.family.shape.num_layers

    def through(self, texts: Sequence[Pair], step: Step) -> list[FloatArray]:
        encoded = self._encoded(texts, step)
        family, targets = self.family, [pair.target for pair in texts]
        feeds: list[Feeds] = [
            {
                "input_ids": pair.target[None],
                "decoder_attention_mask": np.ones((1, len(pair.target)), np.int64),
                "encoder_attention_mask": np.ones((1, states.shape[1]), np.int64),
                "source": states,
            }
            for pair, states in zip(texts, encoded, strict=True)
        ]
        states = self.embedded(graphs.target_inputs, family.embed, targets, feeds)
        for index in range(family.shape.num_layers):
            build = partial(graphs.build_layer, family, index)
            states = step(FloatLayer(index, build, self.tensors, feeds, "decoder"), states)
        return states

    def _encoded(self, texts: Sequence[Pair], step: Step) -> list[FloatArray]:
        """The encoder's output for each source."""
        family, sources = self.family, [pair.source for pair in texts]
        feeds: list[Feeds] = [{"input_ids": s[None], "attention_mask": np.ones((1, len(s)), np.int64)} for s in sources]
        states = self.embedded(graphs.source_inputs, family.embed_source, sources, feeds, graphs.source_shape(family))
        for index in range(family.source_layers):
            build = partial(graphs.build_source_layer, family, index)
            states = step(FloatLayer(index, build, self.tensors, feeds, "encoder"), states)
        return self._normed_sources(states)

    def _normed_sources(self, states: States) -> list[FloatArray]:
        family = self.family
        built = norm_segment(Material(self.tensors, FLOAT), graphs.source_shape(family), family.source_norm)
        segment = segment_of(built)
        return [segment.run({"hidden": h}) for h in states]


@dataclass(frozen=True)
class SpeechRun(EncoderDecoderRun):
    """The same where the sources are features of speech, which `inputs` take."""

    inputs: graphs.SourceInputs = field(kw_only=True)

    def _encoded(self, texts: Sequence[Pair], step: Step) -> list[FloatArray]:
        family = self.family
        built = embedding_segment(Material(self.tensors, self.ends), family.shape, self.inputs, family.embed_source)
        segment = segment_of(built)
        states = [segment.run({"input_features": np.asarray(pair.source, np.float32)[None]}) for pair in texts]
        feeds: list[Feeds] = [{} for _ in texts]
        for index in range(family.source_layers):
            build = partial(graphs.build_source_layer, family, index, tokens=False)
            states = step(FloatLayer(index, build, self.tensors, feeds, "encoder"), states)
        return self._normed_sources(states)
