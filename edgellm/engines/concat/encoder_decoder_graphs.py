"""The graphs of encoder-decoders that concatenate their cache, as optimum writes them.

The decoder's first run makes the keys and values of the source, which later runs take, one set for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.engines.checks import HIDDEN, check_graphs, lacks_graphs
from edgellm.engines.concat.abilities import BatchingGraph, Step
from edgellm.engines.concat.cache import ConcatCache
from edgellm.engines.concat.graph import typed
from edgellm.ort.binding import DTYPES, AnyArray, array_of
from edgellm.ort.loaded_graph import LoadedGraph, LoadSettings
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Array, IntArray, Logits, TokenArray

ENCODER_INPUTS = ("input_ids", "attention_mask")
DECODER_INPUTS = ("input_ids", "encoder_attention_mask", HIDDEN, "decoder_attention_mask", "use_cache_branch")


@dataclass(frozen=True)
class Source:
    """An encoded source. hidden: [1, length, width]. cross: keys and values, each [1, heads, length, head_dim]."""

    length: int
    hidden: AnyArray
    cross: tuple[AnyArray, ...] = ()


@dataclass(frozen=True)
class Cross:
    """What rows read of their sources. tensors: [rows, heads, longest, head_dim], padded behind. mask: [rows, longest]
    int64, ones for tokens."""

    tensors: tuple[AnyArray, ...]
    mask: IntArray

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Cross:
        lengths = np.array([source.length for source in sources])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        if len(sources) == 1:
            return cls(sources[0].cross, mask)
        return cls(tuple(_stacked(tensors) for tensors in zip(*(s.cross for s in sources), strict=True)), mask)

    @property
    def nbytes(self) -> int:
        return sum(array_of(tensor).nbytes for tensor in self.tensors)


def open_concat_encoder_decoder(
    package: Path, manifest: Manifest[EncoderDecoderFacts], settings: LoadSettings
) -> ConcatEncoderDecoder:
    """The graphs "encoder" and "decoder" of a package, or "first" and "later" for the decoder. Raises
    PackageCorruptError where one of them lacks what the manifest promises."""
    if manifest.graphs.keys() not in ({"encoder", "decoder"}, {"encoder", "first", "later"}):
        raise lacks_graphs(manifest, "the graphs encoder and decoder, or encoder, first and later")
    graphs = {name: settings.open(package / graph.file, fuse=True) for name, graph in manifest.graphs.items()}
    check_graphs(graphs, manifest, dict.fromkeys(graphs, DECODER_INPUTS) | {"encoder": ENCODER_INPUTS})
    first, later = (graphs.get(name) or graphs["decoder"] for name in ("first", "later"))
    return ConcatEncoderDecoder(graphs["encoder"], first, later, manifest)


class ConcatEncoderDecoder(BatchingGraph):
    """Runs the graphs. `first`: the graph for targets without a past, `later` for the others; one and the same where
    the decoder is merged. Several engines may share it."""

    def __init__(
        self, encoder: LoadedGraph, first: LoadedGraph, later: LoadedGraph, manifest: Manifest[EncoderDecoderFacts]
    ) -> None:
        super().__init__(manifest.model.cache, manifest.vocab_size)
        self.loaded = later
        self._encoder, self._first, self._later = encoder, first, later
        self._cross = manifest.model.cross_cache.names()
        self._states = manifest.graphs["encoder"].outputs[0]

    def encode(self, tokens: TokenArray) -> Source:
        """tokens: [length]."""
        inputs = {"input_ids": tokens[None], "attention_mask": np.ones((1, len(tokens)), np.int64)}
        (hidden,) = self._encoder.run(typed(inputs, self._encoder), [self._states])
        return Source(len(tokens), hidden)

    def begin(self, cache: ConcatCache, row: int, source: Source, ids: TokenArray) -> tuple[Logits, Source]:
        """Feed ids [tokens] to a row that is empty. Returns [tokens, vocab] float32, and the source with its keys and
        values."""
        loaded, heads = self._first, self.layout.num_kv_heads
        inputs = {
            "input_ids": ids[None],
            "encoder_attention_mask": np.ones((1, source.length), np.int64),
            "decoder_attention_mask": np.ones((1, len(ids)), np.int64),
            "use_cache_branch": np.array([False]),
        }
        pasts = [*(past for past, _ in cache.names), *(past for _, past in self._cross)]
        empty = np.empty((1, heads, 0, self.layout.head_dim), self.layout.dtype)
        feeds: dict[str, Any] = typed(inputs, loaded) | {HIDDEN: source.hidden}
        feeds |= {past: empty for past in pasts if past in loaded.inputs}
        outputs = ["logits", *(present for _, present in cache.names), *(present for present, _ in self._cross)]
        logits, *presents = loaded.run(feeds, outputs)
        cache.advance([row], presents[: len(cache.names)], len(ids))
        made = Source(source.length, source.hidden, tuple(presents[len(cache.names) :]))
        return logits.numpy()[0].astype(np.float32, copy=False), made

    def go_on(self, cache: ConcatCache, rows: Sequence[int], cross: Cross, ids: TokenArray) -> Logits:
        """Append ids [rows, 1]. Returns [rows, vocab] float32."""
        loaded = self._later
        block = cache.together(rows)
        inputs = {
            "input_ids": ids,
            "encoder_attention_mask": cross.mask,
            "decoder_attention_mask": np.ones((len(rows), block.length + 1), np.int64),
            "use_cache_branch": np.array([True]),
        }
        feeds: dict[str, Any] = typed(inputs, loaded)
        feeds |= {past: tensor for (past, _), tensor in zip(cache.names, block.tensors, strict=True)}
        feeds |= {past: tensor for (_, past), tensor in zip(self._cross, cross.tensors, strict=True)}
        if HIDDEN in loaded.inputs:  # a merged decoder asks for it, and does not look at it here
            width = loaded.input_shapes[HIDDEN][2]
            feeds[HIDDEN] = np.zeros((*cross.mask.shape, width), DTYPES[loaded.input_types[HIDDEN]])
        logits, *presents = loaded.run(feeds, ["logits", *(present for _, present in cache.names)])
        cache.advance(rows, presents, 1)
        return logits.numpy()[:, 0].astype(np.float32, copy=False)

    def _begun(self, lengths: Sequence[int]) -> Step:
        """`lengths`: of the sources."""
        ids = self._tokens(sum(lengths))
        sources = [self.encode(tokens) for tokens in np.split(ids, np.cumsum(lengths)[:-1])]
        cache = ConcatCache(self.layout)
        cache.reset(len(sources))
        made = [self.begin(cache, row, source, ids[:1])[1] for row, source in enumerate(sources)]
        return lambda rows: self.go_on(cache, rows, Cross.of([made[row] for row in rows]), ids[rows, None])


def _stacked(tensors: Sequence[AnyArray]) -> Array:
    """[rows, heads, longest, head_dim], padded behind with zeros."""
    arrays = [array_of(tensor)[0] for tensor in tensors]
    longest = max(array.shape[1] for array in arrays)
    stacked = np.zeros((len(arrays), arrays[0].shape[0], longest, arrays[0].shape[2]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return stacked
