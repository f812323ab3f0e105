"""The float model of an encoder-decoder, streamed: one layer in memory at a time, embeddings and head by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.system.threads import usable_cores
from edgellm.types import FloatArray, TokenArray
from edgellm_export.architectures.contract import EncoderDecoderFamily
from edgellm_export.blocks.build import TensorSource
from edgellm_export.blocks.channels import ChannelScales
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.float_run.decoder import ObservedLinear, VocabularyRange, VocabularySubset
from edgellm_export.float_run.segments import Segment, StoredRegions
from edgellm_export.graphs import encoder_decoder as graphs
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.quantize import WeightScheme, scheme_for

Feeds = dict[str, npt.NDArray[np.generic]]
FLOAT = scheme_for("fp32", "cpu")


@dataclass(frozen=True)
class Pair:
    """A source, and a target from its start token on: [length] each."""

    source: TokenArray
    target: TokenArray


@dataclass(frozen=True)
class EncoderDecoderRun:
    """A float32 run of the checkpoint over whole pairs, step by step; states are [1, length, hidden_size] each."""

    architecture: EncoderDecoderFamily
    tensors: TensorSource

    def embed_sources(self, pairs: Sequence[Pair]) -> list[FloatArray]:
        ids = [pair.source for pair in pairs]
        known, tensors = self._selected(ids)
        segment = _segment(graphs.build_source_embedding(self.architecture, tensors, FLOAT))
        return [segment.run({**_source_feeds(s), "input_ids": np.searchsorted(known, s)[None]}) for s in ids]

    def embed_targets(self, pairs: Sequence[Pair]) -> list[FloatArray]:
        known, tensors = self._selected([pair.target for pair in pairs])
        segment = _segment(graphs.build_embedding(self.architecture, tensors, FLOAT))
        return [
            segment.run({**_target_feeds(pair), "input_ids": np.searchsorted(known, pair.target)[None]})
            for pair in pairs
        ]

    def source_layer(
        self, index: int, pairs: Sequence[Pair], states: Sequence[FloatArray], *, observe: bool = False
    ) -> tuple[list[FloatArray], list[ObservedLinear]]:
        """The states behind the encoder's layer `index`; its linear layers with what they read, if asked for."""
        built = graphs.build_source_layer(self.architecture, index, self.tensors, FLOAT, observe=observe)
        feeds = [{**_source_feeds(p.source), "hidden": h} for p, h in zip(pairs, states, strict=True)]
        return _observed(built, feeds, observe=observe)

    def encoded(self, states: Sequence[FloatArray]) -> list[FloatArray]:
        """The encoder's output."""
        segment = _segment(graphs.build_source_norm(self.architecture, self.tensors, FLOAT))
        return [segment.run({"hidden": h}) for h in states]

    def layer(
        self,
        index: int,
        pairs: Sequence[Pair],
        states: Sequence[FloatArray],
        encoded: Sequence[FloatArray],
        *,
        observe: bool = False,
    ) -> tuple[list[FloatArray], list[ObservedLinear]]:
        """The states behind the decoder's layer `index`, likewise; the projections of the encoder's output that it
        reads are counted among its linear layers."""
        built = graphs.build_layer(self.architecture, index, self.tensors, FLOAT, observe=observe)
        feeds = [{**_target_feeds(p), "hidden": h, "source": e} for p, h, e in zip(pairs, states, encoded, strict=True)]
        return _observed(built, feeds, observe=observe)

    def source_layer_weights(self, index: int, scales: ChannelScales) -> dict[str, LazyTensor]:
        """The matrices of the layer's linear layers by their names, as `scales` change them."""
        return _weights(graphs.build_source_layer(self.architecture, index, self.tensors, FLOAT, scales))

    def layer_weights(self, index: int, scales: ChannelScales) -> dict[str, LazyTensor]:
        return _weights(graphs.build_layer(self.architecture, index, self.tensors, FLOAT, scales))

    def normed(self, states: Sequence[FloatArray]) -> FloatArray:
        """Hidden states of all target tokens after the final norm: [tokens, hidden_size]."""
        segment = _segment(graphs.build_final_norm(self.architecture, self.tensors, FLOAT))
        return np.concatenate([segment.run({"hidden": h})[0] for h in states])

    def logits(self, hidden: FloatArray, start: int, stop: int) -> FloatArray:
        """Logits of the tokens `start` to `stop`: [rows, stop - start] from normed hidden states [rows,
        hidden_size]."""
        tensors = VocabularyRange(self.tensors, start, stop, self.architecture.names.vocabulary)
        return np.asarray(
            _segment(graphs.build_head(self.architecture, tensors, FLOAT)).run({"hidden": hidden[None]})[0]
        )

    def _selected(self, sequences: Sequence[TokenArray]) -> tuple[TokenArray, TensorSource]:
        ids = np.unique(np.concatenate(sequences))
        return ids, VocabularySubset(self.tensors, ids, self.architecture.names.vocabulary)


@dataclass(frozen=True)
class PackageParts:
    """Single layers of a written package, beside the float model's."""

    architecture: EncoderDecoderFamily
    tensors: TensorSource
    scheme: WeightScheme
    scales: ChannelScales
    data: StoredRegions

    def source_error(self, index: int, pair: Pair, before: FloatArray, after: FloatArray) -> float:
        """|package's layer - float layer| / |what the float layer adds|, both given the float model's input."""
        built = graphs.build_source_layer(self.architecture, index, self.tensors, self.scheme, self.scales)
        return self._error(built, _source_feeds(pair.source), before, after)

    def error(self, index: int, pair: Pair, before: FloatArray, encoded: FloatArray, after: FloatArray) -> float:
        built = graphs.build_layer(self.architecture, index, self.tensors, self.scheme, self.scales)
        return self._error(
            built, {**_target_feeds(pair), "source": encoded.astype(self.scheme.activation)}, before, after
        )

    def _error(self, built: BuiltGraph, feeds: Feeds, before: FloatArray, after: FloatArray) -> float:
        segment = Segment(built, data=self.data, threads=usable_cores())
        output = segment.run({**feeds, "hidden": before.astype(self.scheme.activation)}).astype(np.float32)
        return float(np.linalg.norm(output - after)) / max(float(np.linalg.norm(after - before)), 1e-30)


def _segment(built: BuiltGraph) -> Segment:
    return Segment(built, threads=usable_cores())


def _observed(
    built: BuiltGraph, feeds: Sequence[Feeds], *, observe: bool
) -> tuple[list[FloatArray], list[ObservedLinear]]:
    segment = _segment(built)
    runs = [segment.run_all(fed) for fed in feeds]
    first = next(iter(runs[0]))
    outputs = [run[first] for run in runs]
    if not observe:
        return outputs, []
    # A layer may read what the segment is given, which is no output of it.
    read = [{**fed, **run} for fed, run in zip(feeds, runs, strict=True)]
    return outputs, [
        ObservedLinear(p.name, p.origin, p.into_softmax, [values[str(p.x.name)][0] for values in read])
        for p in built.projections
    ]


def _weights(built: BuiltGraph) -> dict[str, LazyTensor]:
    return {projection.name: projection.weight for projection in built.projections}


def _source_feeds(source: TokenArray) -> Feeds:
    return {"input_ids": source[None], "attention_mask": np.ones((1, len(source)), np.int64)}


def _target_feeds(pair: Pair) -> Feeds:
    return {
        "input_ids": pair.target[None],
        "decoder_attention_mask": np.ones((1, len(pair.target)), np.int64),
        "encoder_attention_mask": np.ones((1, len(pair.source)), np.int64),
    }
