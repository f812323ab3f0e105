"""Encoder-decoder graphs that concatenate their cache, as optimum writes them, behind the interface of
`EncoderDecoderEngine`: rows of target tokens in, logits of the last token out.

The decoder's first run makes the keys and values of the source, which later runs take, one set for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.checks import HIDDEN, check_graphs, lacks_graphs
from edgellm.engines.concat.cache import ConcatCache
from edgellm.engines.concat.graph import agree, typed
from edgellm.engines.contract import HEADROOM
from edgellm.engines.in_place.encoder_decoder import array_of
from edgellm.errors import ContextOverflowError
from edgellm.ort.session import DeviceArray, LoadSettings, Session
from edgellm.ort.tensor_types import DTYPES
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Array, Logits, ProgressHook, TokenArray

ENCODER_INPUTS = ("input_ids", "attention_mask")
DECODER_INPUTS = ("input_ids", "encoder_attention_mask", HIDDEN, "decoder_attention_mask", "use_cache_branch")


@dataclass(frozen=True)
class Source:
    """An encoded source. hidden: [1, length, width]. cross: keys and values, each [1, heads, length, head_dim]."""

    length: int
    hidden: DeviceArray | Array
    cross: tuple[DeviceArray | Array, ...] = ()


def open_concat_encoder_decoder(
    package: Path, manifest: Manifest[EncoderDecoderFacts], settings: LoadSettings
) -> ConcatEncoderDecoder:
    """The graphs "encoder" and "decoder" of a package, or "first" and "later" for the decoder. Raises
    PackageCorruptError where one of them lacks what the manifest promises."""
    if manifest.graphs.keys() not in ({"encoder", "decoder"}, {"encoder", "first", "later"}):
        raise lacks_graphs(manifest, "the graphs encoder and decoder, or encoder, first and later")
    sessions = {name: settings.open(package / graph.file, fuse=True) for name, graph in manifest.graphs.items()}
    check_graphs(sessions, manifest, dict.fromkeys(sessions, DECODER_INPUTS) | {"encoder": ENCODER_INPUTS})
    first, later = (sessions.get(name) or sessions["decoder"] for name in ("first", "later"))
    return ConcatEncoderDecoder(sessions["encoder"], first, later, manifest)


class ConcatEncoderDecoder:
    """Runs the graphs. `first`: the session for targets without a past, `later` for the others; one and the same where
    the decoder is merged. Several engines may share it."""

    def __init__(
        self, encoder: Session, first: Session, later: Session, manifest: Manifest[EncoderDecoderFacts]
    ) -> None:
        self.session = later
        self.layout = manifest.model.cache
        self._vocab_size = manifest.vocab_size
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
        session, heads = self._first, self.layout.num_kv_heads
        inputs = {
            "input_ids": ids[None],
            "encoder_attention_mask": np.ones((1, source.length), np.int64),
            "decoder_attention_mask": np.ones((1, len(ids)), np.int64),
            "use_cache_branch": np.array([False]),
        }
        pasts = [*(past for past, _ in cache.names), *(past for _, past in self._cross)]
        empty = np.empty((1, heads, 0, self.layout.head_dim), self.layout.dtype)
        feeds: dict[str, Any] = typed(inputs, session) | {HIDDEN: source.hidden}
        feeds |= {past: empty for past in pasts if past in session.inputs}
        outputs = ["logits", *(present for _, present in cache.names), *(present for present, _ in self._cross)]
        logits, *presents = session.run(feeds, outputs)
        cache.advance([row], presents[: len(cache.names)], len(ids))
        made = Source(source.length, source.hidden, tuple(presents[len(cache.names) :]))
        return logits.numpy()[0].astype(np.float32, copy=False), made

    def go_on(self, cache: ConcatCache, rows: Sequence[int], cross: Cross, ids: TokenArray) -> Logits:
        """Append ids [rows, 1]. Returns [rows, vocab] float32."""
        session = self._later
        block = cache.together(rows)
        inputs = {
            "input_ids": ids,
            "encoder_attention_mask": cross.mask,
            "decoder_attention_mask": np.ones((len(rows), block.length + 1), np.int64),
            "use_cache_branch": np.array([True]),
        }
        feeds: dict[str, Any] = typed(inputs, session)
        feeds |= {past: tensor for (past, _), tensor in zip(cache.names, block.tensors, strict=True)}
        feeds |= {past: tensor for (_, past), tensor in zip(self._cross, cross.tensors, strict=True)}
        if HIDDEN in session.inputs:  # a merged decoder asks for it, and does not look at it here
            width = session.input_shapes[HIDDEN][2]
            feeds[HIDDEN] = np.zeros((*cross.mask.shape, width), DTYPES[session.input_types[HIDDEN]])
        logits, *presents = session.run(feeds, ["logits", *(present for _, present in cache.names)])
        cache.advance(rows, presents, 1)
        return logits.numpy()[:, 0].astype(np.float32, copy=False)

    @cached_property
    def takes_batches(self) -> bool:
        """Whether rows whose sources are of one length get the same logits together as each by itself."""
        return self._rows_agree([3, 3])

    @cached_property
    def takes_lengths(self) -> bool:
        """The same for sources of different lengths."""
        return self._rows_agree([2, 5])

    def _rows_agree(self, lengths: Sequence[int]) -> bool:
        ids = np.linspace(self._vocab_size - 1, 0, sum(lengths)).astype(np.int64)
        sources = [self.encode(tokens) for tokens in np.split(ids, np.cumsum(lengths)[:-1])]

        def begun() -> tuple[ConcatCache, list[Source]]:
            cache = ConcatCache(self.layout)
            cache.reset(len(sources))
            return cache, [self.begin(cache, row, source, ids[:1])[1] for row, source in enumerate(sources)]

        def apart() -> Logits:
            cache, made = begun()
            return np.concatenate(
                [self.go_on(cache, [i], Cross.of([s]), ids[i : i + 1, None]) for i, s in enumerate(made)]
            )

        def together() -> Logits:
            cache, made = begun()
            return self.go_on(cache, range(len(made)), Cross.of(made), ids[: len(made), None])

        return agree(apart, together, self.layout.dtype)


@dataclass(frozen=True)
class Cross:
    """What rows read of their sources. tensors: [rows, heads, longest, head_dim], padded behind. mask: [rows, longest]
    int64, ones for tokens."""

    tensors: tuple[DeviceArray | Array, ...]
    mask: npt.NDArray[np.int64]

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


class ConcatEncoderDecoderEngine:
    """Graphs and a cache of its own; not for two threads at once. All rows have the same length.

    Sources are encoded, and targets begun, one by one; rows are then decoded together as far as that gives each what it
    would get by itself: all of them, those with sources of one length, or each alone.
    """

    def __init__(self, graphs: ConcatEncoderDecoder, manifest: Manifest[EncoderDecoderFacts]) -> None:
        self._graphs = graphs
        self._manifest = manifest
        self._cache = ConcatCache(manifest.model.cache)
        self._encoded: dict[tuple[int, ...], Source] = {}  # of the last prefill
        self._sources: list[Source] = []  # of each row
        self._read: dict[tuple[int, ...], Cross] = {}  # by the rows' sources, of the last step

    @property
    def rows(self) -> int:
        """Sources of the last prefill."""
        return len(self._encoded)

    @property
    def cache_bytes(self) -> int:
        """Of the rows' own cache, without the sources' keys and values."""
        return self._cache.nbytes

    @property
    def cross_cache_bytes(self) -> int:
        """Of the keys and values of the sources in use, which are there once for each row."""
        return sum(cross.nbytes for cross in self._read.values())

    def prefill(
        self,
        prompts: Sequence[TokenArray],
        sources: Sequence[TokenArray] | None = None,
        *,
        headroom: int = HEADROOM,
        progress: ProgressHook | None = None,
    ) -> Logits:
        """Start over: [rows, vocab] behind the starts `prompts`, which are of one length, each of one of the `sources`.
        Sources that are those of the last prefill are not encoded again. `headroom`: has no
        meaning here."""
        assert sources is not None
        self._encode(sources, progress)
        self._cache.reset(len(prompts))
        logits = np.empty((len(prompts), self._manifest.vocab_size), np.float32)
        for row, prompt in enumerate(prompts):
            found, self._sources[row] = self._graphs.begin(self._cache, row, self._sources[row], prompt)
            logits[row] = found[-1]
        return logits

    def insert(
        self,
        prompt: TokenArray,
        source: TokenArray | None = None,
        *,
        headroom: int = HEADROOM,
        progress: ProgressHook | None = None,
    ) -> Logits:
        """Raises NotImplementedError: all rows have one length here."""
        raise NotImplementedError("rows of an encoder-decoder begin together")

    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab] float32, until the next call. Raises ContextOverflowError where the rows are full."""
        if self._cache.lengths[0] >= self._manifest.context_length:
            raise ContextOverflowError(
                f"the target has reached the model's longest of {self._manifest.context_length} tokens; "
                "ask for fewer new tokens"
            )
        logits = np.empty((len(tokens), self._manifest.vocab_size), np.float32)
        before, self._read = self._read, {}
        for rows in self._groups():
            key = tuple(id(self._sources[row]) for row in rows)
            self._read[key] = before.get(key) or Cross.of([self._sources[row] for row in rows])
            logits[rows] = self._graphs.go_on(self._cache, rows, self._read[key], tokens[rows, None])
        return logits

    def reorder(self, parents: TokenArray) -> None:
        self._cache.reorder(parents)
        self._sources = [self._sources[parent] for parent in parents.tolist()]

    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        """[length, vocab] behind each of the target's tokens."""
        assert source is not None
        self._encode([source])
        self._cache.reset(1)
        logits, self._sources[0] = self._graphs.begin(self._cache, 0, self._sources[0], tokens)
        yield logits

    def _encode(self, sources: Sequence[TokenArray], progress: ProgressHook | None = None) -> None:
        wanted = [tuple(source.tolist()) for source in sources]
        kept = {tokens: source for tokens, source in self._encoded.items() if tokens in wanted}
        self._encoded, self._read = kept, {}
        for done, tokens in enumerate(wanted):
            if tokens not in self._encoded:
                self._encoded[tokens] = self._graphs.encode(np.array(tokens, np.int64))
            if progress is not None:
                progress(sum(map(len, wanted[: done + 1])), sum(map(len, wanted)))
        self._sources = [self._encoded[tokens] for tokens in wanted]

    def _groups(self) -> list[list[int]]:
        """The rows, those together that may run together."""
        lengths = [source.length for source in self._sources]
        if len(lengths) == 1 or (len(set(lengths)) > 1 and self._graphs.takes_lengths and self._graphs.takes_batches):
            return [list(range(len(lengths)))]
        if not self._graphs.takes_batches:
            return [[row] for row in range(len(lengths))]
        return [[row for row, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]


def _stacked(tensors: Sequence[DeviceArray | Array]) -> Array:
    """[rows, heads, longest, head_dim], padded behind with zeros."""
    arrays = [array_of(tensor)[0] for tensor in tensors]
    longest = max(array.shape[1] for array in arrays)
    stacked = np.zeros((len(arrays), arrays[0].shape[0], longest, arrays[0].shape[2]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return stacked
