"""The model as a search sees it: rows of tokens in, logits of the last token out. Implements `decoding.Decoder`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.checks import only_graph
from edgellm.engines.contract import CachedEngine, chunks
from edgellm.engines.in_place.cache import KVCache, open_cache
from edgellm.errors import ContextOverflowError
from edgellm.ort.session import Binding, Session
from edgellm.ort.tensor_types import DTYPES
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import IntArray, Logits, TokenArray


class Engine(CachedEngine[KVCache]):
    """A session and a cache of its own; not for two threads at once.

    Rows are prefilled one after the other, in chunks, through a one-row view of the cache: the graph takes several
    tokens behind a cached past only in a batch of one. They are then decoded together, however their lengths differ.
    """

    def __init__(
        self,
        session: Session,
        manifest: Manifest[DecoderFacts],
        *,
        prefill_chunk: int = 128,
        reuse_generated: bool = False,
    ) -> None:
        cache = open_cache(manifest.model.cache, manifest.context_length, session.device)
        super().__init__(manifest, cache, prefill_chunk, reuse_generated)
        self._prefill = _Phase(session, manifest)
        self._decode = _Phase(session, manifest)
        self._verify = _Phase(session, manifest)
        self._gives_last_only = self._verify.gives_last_only

    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab] float32, until the next call. Raises ContextOverflowError where a row is full."""
        longest = max(self._cache.lengths) + 1
        if longest > self._manifest.context_length:
            raise ContextOverflowError(
                f"the sequence has reached the model's context of {self._manifest.context_length} tokens; "
                "ask for fewer new tokens or shorten the prompt"
            )
        self._cache.reserve(longest)
        self.history.append(tokens)
        if self._tables_differ(longest):
            return self._decode_row_by_row()
        lengths = [length + 1 for length in self._cache.lengths]
        logits = self._decode.run(self._cache, None, tokens[:, None], lengths)
        self._cache.advance(1)
        return logits

    @property
    def lookahead(self) -> int:
        """Below 2 where there are several rows, or rotary tables that change in between, or the graph of another tool
        gives the logits of the last token only."""
        rope = self._manifest.model.rope
        if self.rows != 1 or rope.changes_with_every_token or self._gives_last_only:
            return 1
        length = self._cache.lengths[0]
        room = min(self._chunk, self._manifest.context_length - length)
        changes_at = rope.recompute_beyond
        return room if changes_at is None or length > changes_at else min(room, changes_at - length)

    def verify(self, tokens: TokenArray) -> Logits:
        length = self._cache.lengths[0] + len(tokens)
        assert self.rows == 1
        self._cache.reserve(length)
        self.history.extend(tokens)
        logits = self._verify.run(self._cache, None, tokens[None], [length], keep=len(tokens))
        self._cache.advance(len(tokens))
        return logits

    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        self._start(1, len(tokens))
        self.history.begin([tokens])
        pieces = zip(range(len(tokens)), range(1, len(tokens) + 1), strict=True)  # of one token
        for start, stop in pieces if self._gives_last_only else self._chunks(0, len(tokens)):
            logits = self._run_chunk(0, tokens, start, stop, keep_all=True)
            yield logits.copy() if stop - start == 1 else logits  # of a single position: memory that is used again

    def _start(self, rows: int, length: int) -> None:
        self._cache.reset(rows, min(length, self._manifest.context_length))

    def _fill(self, row: int, tokens: TokenArray, start: int) -> Iterator[tuple[int, Logits]]:
        self._cache.trim(start, row)
        self._cache.reserve(len(tokens))
        for at, stop in self._chunks(start, len(tokens)):
            logits = self._run_chunk(row, tokens, at, stop)
            yield self._cache.lengths[row], logits[-1]

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """A prompt beyond the length where rotary tables change is one piece for a graph that cannot be told so."""
        rope = self._manifest.model.rope
        changes_at = None if rope.has_length_input else rope.recompute_beyond
        if changes_at is not None and start < stop and stop > changes_at:
            return [(start, stop)]
        return chunks(start, stop, self._chunk)

    def _run_chunk(self, row: int, tokens: TokenArray, start: int, stop: int, *, keep_all: bool = False) -> Logits:
        """[1, vocab], or [chunk, vocab] of every position."""
        chunk = tokens[start:stop]
        keep = len(chunk) if keep_all else 1
        lengths = [stop]
        logits = self._prefill.run(self._cache, row, chunk[None], lengths, keep=keep, rope_length=len(tokens))
        self._cache.advance(len(chunk), row)
        return logits

    def _tables_differ(self, longest: int) -> bool:
        """Whether the rows, one token longer, do not all use the same rotary table, or one of them changes over."""
        limit = self._manifest.model.rope.recompute_beyond
        return limit is not None and longest > limit and min(self._cache.lengths) <= limit

    def _decode_row_by_row(self) -> Logits:
        limit = self._manifest.model.rope.recompute_beyond
        logits = np.empty((self.rows, self._manifest.vocab_size), np.float32)
        for row, tokens in enumerate(held.tokens for held in self.history.rows):
            changes_over = len(tokens) - 1 == limit
            for _, last in self._fill(row, np.array(tokens, np.int64), start=0 if changes_over else len(tokens) - 1):
                logits[row] = last
        return logits


class _Phase:
    """The inputs and outputs of the graph bound once for a kind of call, and again only where they changed."""

    def __init__(self, session: Session, manifest: Manifest[DecoderFacts]) -> None:
        graph = only_graph(manifest)
        self._binding: Binding = session.bind()
        self._vocab_size = manifest.vocab_size
        self._logits_dtype: np.dtype[Any] = DTYPES[session.output_types["logits"]]
        self._has_keep = "logits_to_keep" in graph.inputs
        self.gives_last_only = not self._has_keep and session.output_shapes["logits"][1] == 1
        self._has_rope_length = manifest.model.rope.has_length_input
        self._mask = AttentionMask()
        self._bound: tuple[int, int | None] | None = None  # cache version and row
        self._keep = 1
        self._fetched = False
        self._ids: TokenArray = np.empty((0, 0), np.int64)
        self._logits: npt.NDArray[Any] = np.empty((0, 1, manifest.vocab_size), self._logits_dtype)

    def run(
        self,
        cache: KVCache,
        row: int | None,
        ids: TokenArray,
        lengths: Sequence[int],
        *,
        keep: int = 1,
        rope_length: int = 0,
    ) -> Logits:
        """[rows, vocab] float32 of the last position, until the next run; or [keep, vocab] of a single row."""
        binding = self._binding
        if self._bound != (cache.version, row):
            cache.bind(binding, row)
            self._bound = (cache.version, row)
        if not binding.in_place or self._ids.shape != ids.shape:
            self._ids = np.array(ids)
            binding.input("input_ids", self._ids)
        self._ids[...] = ids
        binding.input_at("attention_mask", *self._mask.of(lengths))
        if self._has_rope_length and rope_length:
            binding.input("rope_length", np.array([rope_length], np.int64))
        self._bind_logits(ids.shape, keep)
        binding.run()
        logits = binding.fetch("logits")[0, -keep:] if self._fetched else self._logits[:, 0]
        return logits.astype(np.float32, copy=False)

    def _bind_logits(self, ids: tuple[int, ...], keep: int) -> None:
        """One position per row goes to memory of ours. More are fetched: our graphs declare one. Graphs of other tools
        give every position, also where only the last is wanted."""
        rows, tokens = ids
        if self._has_keep and keep != self._keep:
            self._binding.input("logits_to_keep", np.array([keep], np.int64))
        fetched = keep > 1 or (tokens > 1 and not self._has_keep and not self.gives_last_only)
        if fetched:
            self._binding.new_output("logits")
        elif len(self._logits) != rows or self._fetched:
            self._logits = np.empty((rows, 1, self._vocab_size), self._logits_dtype)
            self._binding.output("logits", self._logits)
        self._keep, self._fetched = keep, fetched


class AttentionMask:
    """[rows, longest] int64: ones for each row's tokens, then zeros. Equal lengths, the usual case, cost nothing."""

    def __init__(self) -> None:
        self._ones: IntArray = np.ones(0, np.int64)
        self._address = 0

    def of(self, lengths: Sequence[int]) -> tuple[IntArray, int]:
        """The mask and the address of its first byte."""
        total = max(lengths)
        if min(lengths) != total:
            mask = (np.arange(total) < np.array(lengths)[:, None]).astype(np.int64)
            return mask, mask.ctypes.data
        size = total * len(lengths)
        if size > len(self._ones):
            self._ones = np.ones(2 * size, np.int64)
            self._address = self._ones.ctypes.data
        return self._ones[:size].reshape(len(lengths), total), self._address
