"""Attention weights of one pass, from packages exported with --attentions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.errors import OptionError
from edgellm.ort.binding import DeviceArray
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import DecoderFacts, EncoderDecoderFacts, GraphFile, Manifest
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Array, FloatArray, IntArray


@dataclass(frozen=True)
class Attentions:
    """weights: [layers, heads, tokens, seen] float32: how much each token looks at each that it sees; rows sum to 1.
    tokens: those that look, as the vocabulary has them, "" where the package has no tokenizer. seen: those that they
    look at: the same, but for a decoder's attention to its source."""

    weights: FloatArray
    tokens: tuple[str, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True)
class DecoderResult:
    """What a decoder says of one prompt. tokens: ids. logits: [tokens, vocab] float32, what it predicts after each."""

    tokens: tuple[int, ...]
    logits: FloatArray
    attentions: Attentions | None


@dataclass(frozen=True)
class EncoderDecoderResult:
    """What an encoder-decoder says of a source and a target. source, target: token ids, the start token included.
    logits: [target, vocab] float32, what it predicts after each of the target's tokens."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    logits: FloatArray
    encoder_attentions: Attentions | None
    decoder_attentions: Attentions | None
    cross_attentions: Attentions | None


def token_texts(tokenizer: Tokenizer | None, tokens: Sequence[int]) -> tuple[str, ...]:
    return tuple("" if tokenizer is None else tokenizer.token_of(token) for token in tokens)


def check_attentions(graph: GraphFile) -> None:
    """Raises OptionError where the graph does not give its attention weights."""
    if not graph.attentions:
        raise OptionError(
            "output_attentions needs a package that was exported for it: `edgellm export SOURCE OUT --attentions`"
        )


def decoder_pass(
    loaded: LoadedGraph, manifest: Manifest[DecoderFacts], graph: GraphFile, tokens: IntArray
) -> tuple[FloatArray, FloatArray]:
    """logits [tokens, vocab] and weights [layers, heads, tokens, tokens], in one run over all tokens."""
    layout, length = manifest.model.cache, len(tokens)
    empty = np.zeros((1, layout.num_kv_heads, length, layout.head_dim), layout.dtype)
    feeds = {
        "input_ids": tokens[None],
        "attention_mask": np.ones((1, length), np.int64),
        "logits_to_keep": np.array([length], np.int64),
        **{past: empty for past, _ in layout.names()},
    }
    logits, *weights = (array.numpy()[0] for array in loaded.run(feeds, ["logits", *graph.attentions]))
    return logits, np.stack(weights)


def encoder_decoder_pass(
    encoder: LoadedGraph,
    decoder: LoadedGraph,
    manifest: Manifest[EncoderDecoderFacts],
    source: IntArray,
    target: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """logits [target, vocab], and the weights [layers, heads, ...] of source to source, target to target, target to
    source; in one run of each graph."""
    graphs, layout, length = manifest.graphs, manifest.model.cache, len(target)
    mask = np.ones((1, len(source)), np.int64)
    names = manifest.model.cross_cache.names()
    outputs = [*(present for present, _ in names), *graphs["encoder"].attentions]
    found = encoder.run({"input_ids": source[None], "attention_mask": mask}, outputs)
    empty = np.zeros((1, layout.num_kv_heads, length, layout.head_dim), layout.dtype)
    feeds: dict[str, Array | DeviceArray] = {
        "input_ids": target[None],
        "decoder_attention_mask": np.ones((1, length), np.int64),
        "encoder_attention_mask": mask,
        "logits_to_keep": np.array([length], np.int64),
        **{past: value for (_, past), value in zip(names, found, strict=False)},
        **{past: empty for past, _ in layout.names()},
    }
    own, across = graphs["decoder"].attentions, graphs["decoder"].cross_attentions
    logits, *weights = (array.numpy()[0] for array in decoder.run(feeds, ["logits", *own, *across]))
    seen = np.stack([array.numpy()[0] for array in found[len(names) :]])
    return logits, seen, np.stack(weights[: len(own)]), np.stack(weights[len(own) :])
