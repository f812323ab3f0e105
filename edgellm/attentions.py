"""Attention weights of one pass, from packages exported with --attentions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.cache import cache_names
from edgellm.errors import OptionError
from edgellm.manifest import GraphFile, Manifest
from edgellm.session import Session
from edgellm.tokenizer import Tokenizer

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attentions:
    """weights: [layers, heads, tokens, tokens] float32: how much each token looks at each one; rows sum to 1. tokens:
    as the vocabulary has them, "" where the package has no tokenizer."""

    weights: FloatArray
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class DecoderResult:
    """What a decoder says of one prompt. tokens: ids. logits: [tokens, vocab] float32, what it predicts after each."""

    tokens: tuple[int, ...]
    logits: FloatArray
    attentions: Attentions | None


def token_texts(tokenizer: Tokenizer | None, tokens: Sequence[int]) -> tuple[str, ...]:
    return tuple("" if tokenizer is None else tokenizer.token_of(token) for token in tokens)


def check_attentions(graph: GraphFile) -> None:
    """Raises OptionError where the graph does not give its attention weights."""
    if not graph.attentions:
        raise OptionError(
            "output_attentions needs a package that was exported for it: `edgellm export SOURCE OUT --attentions`"
        )


def decoder_pass(
    session: Session, manifest: Manifest, graph: GraphFile, tokens: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """logits [tokens, vocab] and weights [layers, heads, tokens, tokens], in one run over all tokens."""
    layout, length = manifest.kv_cache, len(tokens)
    empty = np.zeros((1, layout.num_kv_heads, length, layout.head_dim), layout.dtype)
    feeds = {
        "input_ids": tokens[None],
        "attention_mask": np.ones((1, length), np.int64),
        "logits_to_keep": np.array([length], np.int64),
        **{past: empty for past, _ in cache_names(layout)},
    }
    logits, *weights = (array.numpy()[0] for array in session.run(feeds, ["logits", *graph.attentions]))
    return logits, np.stack(weights)
