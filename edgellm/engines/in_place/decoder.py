"""The model as a search sees it: rows of tokens in, logits of the last token out. Implements `decoding.Decoder`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgellm.engines.cached import CachedEngine, chunks
from edgellm.engines.checks import only_graph
from edgellm.engines.contract import Known
from edgellm.engines.in_place import open_cache
from edgellm.engines.in_place.binding import BoundDecoder
from edgellm.engines.in_place.cache import KVCache
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.layouts import STATES_RUN
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import Logits, TokenArray


class Engine(CachedEngine[KVCache]):
    """A loaded graph and a cache of its own; not for two threads at once.

    Rows are prefilled one after the other, in chunks, through a one-row view of the cache: the graph takes several
    tokens behind a cached past only in a batch of one. They are then decoded together, however their lengths differ.
    """

    def __init__(
        self,
        loaded: LoadedGraph,
        manifest: Manifest[DecoderFacts],
        *,
        prefill_chunk: int = 128,
        reuse_generated: bool = False,
    ) -> None:
        layout = manifest.model.cache
        if layout.states is not None:
            prefill_chunk = min(prefill_chunk, STATES_RUN - 1)  # a piece may be longer by one
        cache = open_cache(layout, manifest.context_length, loaded.device, prefill_chunk)
        exact = loaded.is_exact and layout.states is None
        super().__init__(manifest, cache, prefill_chunk, reuse_generated or exact)
        self._rope = manifest.model.rope
        graph = only_graph(manifest)
        self._prefill, self._decode, self._verify = (BoundDecoder(loaded, graph, manifest.vocab_size) for _ in range(3))
        self._gives_last_only = self._verify.gives_last_only

    def decode(self, tokens: TokenArray) -> Logits:
        lengths = [length + 1 for length in self._cache.lengths[: len(tokens)]]
        longest = max(lengths)
        if longest > self._manifest.context_length:
            raise self._overflow()
        self._cache.reserve(longest)
        self.history.append(tokens)
        if self._tables_differ(lengths):
            return self._decode_row_by_row(len(tokens))
        logits = self._decode.run(self._cache, tokens[:, None], lengths)
        self._cache.advance(1, range(len(tokens)))
        return logits

    @property
    def lookahead(self) -> int:
        """Below 2 where there are several rows, or rotary tables that change in between, or states that cannot forget a
        token, or the graph of another tool gives the logits of the last token only."""
        rope = self._rope
        states = self._manifest.model.cache.states is not None
        if self.rows != 1 or rope.changes_with_every_token or self._gives_last_only or states:
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
        logits = self._verify.run(self._cache, tokens[None], [length], keep=len(tokens))
        self._cache.advance(len(tokens))
        return logits

    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        self._start(1, len(tokens))
        self.history.begin([tokens])
        pieces = zip(range(len(tokens)), range(1, len(tokens) + 1), strict=True)  # of one token
        for start, stop in pieces if self._gives_last_only else self._chunks(0, len(tokens)):
            logits = self._run_chunk(0, tokens, start, stop, keep_all=True)
            yield logits.copy() if stop - start == 1 else logits  # of a single position: memory that is used again

    @property
    def gives_cache(self) -> bool:
        """In main memory, where the keys do not depend on the length of their sequence, and are the same however they
        were computed; not of states, which are there for the end of a row alone."""
        rope, states = self._rope, self._manifest.model.cache.states is not None
        changes = rope.changes_with_every_token or rope.recompute_beyond is not None or states
        return self._cache.device == "cpu" and self.history.reuse_generated and not changes

    def taken(self, row: int, start: int, stop: int) -> Known:
        return self._cache.taken(row, start, stop)

    def _give(self, known: Sequence[Known]) -> int:
        for part in known:
            self._cache.give(self.rows - 1, part)
        return self._cache.lengths[-1]

    def _start(self, rows: int, length: int) -> None:
        self._cache.reset(rows, min(length, self._manifest.context_length))

    def _fill(self, row: int, tokens: TokenArray, start: int) -> Iterator[tuple[int, Logits]]:
        self._cache.trim(start, row % self.rows)
        self._cache.reserve(len(tokens))
        for at, stop in self._chunks(start, len(tokens)):
            logits = self._run_chunk(row % self.rows, tokens, at, stop)
            if stop == len(tokens):
                self._cache.remember(row % self.rows)
            yield stop, logits[-1]

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """A prompt beyond the length where rotary tables change is one piece for a graph that cannot be told so."""
        rope = self._rope
        changes_at = None if rope.has_length_input else rope.recompute_beyond
        if changes_at is not None and start < stop and stop > changes_at:
            return [(start, stop)]
        return chunks(start, stop, self._chunk)

    def _run_chunk(self, row: int, tokens: TokenArray, start: int, stop: int, *, keep_all: bool = False) -> Logits:
        """[1, vocab], or [chunk, vocab] of every position."""
        chunk = tokens[start:stop]
        keep = len(chunk) if keep_all else 1
        if self._rope.has_length_input:
            self._prefill.bind("rope_length", np.array([len(tokens)], np.int64))
        logits = self._prefill.run(self._cache, chunk[None], [stop], row=row, keep=keep)
        self._cache.advance(len(chunk), range(row, row + 1))
        return logits

    def _tables_differ(self, lengths: Sequence[int]) -> bool:
        """Whether rows of these lengths, a new token included, do not all use the same rotary table, or one of them
        changes over."""
        limit = self._rope.recompute_beyond
        return limit is not None and max(lengths) > limit and min(lengths) <= limit + 1

    def _decode_row_by_row(self, rows: int) -> Logits:
        limit = self._rope.recompute_beyond
        logits = np.empty((rows, self._manifest.vocab_size), np.float32)
        for row, tokens in enumerate(held.tokens for held in self.history.rows[:rows]):
            changes_over = len(tokens) - 1 == limit
            for _, last in self._fill(row, np.array(tokens, np.int64), start=0 if changes_over else len(tokens) - 1):
                logits[row] = last
        return logits
