"""The engine for graphs that concatenate their cache: rows of tokens in, logits of the last token out, as `Engine`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgellm.engines.cached import CachedEngine, chunks
from edgellm.engines.concat.cache import ConcatCache
from edgellm.engines.concat.graph import ConcatGraph
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import Logits, TokenArray


class ConcatEngine(CachedEngine[ConcatCache]):
    """A graph and a cache of its own; not for two threads at once.

    Rows are prefilled one after the other, in chunks where the graph takes chunks. They are then decoded together as
    far as that gives each row what it would get by itself: all of them, those of one length, or each by itself.
    """

    def __init__(
        self,
        graph: ConcatGraph,
        manifest: Manifest[DecoderFacts],
        *,
        prefill_chunk: int = 128,
        reuse_generated: bool = False,
    ) -> None:
        super().__init__(manifest, ConcatCache(manifest.model.cache), prefill_chunk, reuse_generated)
        self._graph = graph

    def decode(self, tokens: TokenArray) -> Logits:
        lengths = self._cache.lengths[: len(tokens)]
        if max(lengths) >= self._manifest.context_length:
            raise self._overflow()
        self.history.append(tokens)
        logits = np.empty((len(tokens), self._manifest.vocab_size), np.float32)
        for rows in self._graph.groups(lengths):
            logits[rows] = self._graph.run(self._cache, rows, tokens[rows, None])[:, 0]
        return logits

    @property
    def lookahead(self) -> int:
        if self.rows != 1 or not self._graph.takes_chunks:
            return 1
        return min(self._chunk, self._manifest.context_length - self._cache.lengths[0])

    def verify(self, tokens: TokenArray) -> Logits:
        assert self.rows == 1
        self.history.extend(tokens)
        logits: Logits = self._graph.run(self._cache, [0], tokens[None])[0]
        return logits

    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        self._start(1, len(tokens))
        self.history.begin([tokens])
        for start, stop in self._chunks(0, len(tokens)):
            yield self._graph.run(self._cache, [0], tokens[None, start:stop])[0]

    def _start(self, rows: int, length: int) -> None:
        self._cache.reset(rows)

    def _fill(self, row: int, tokens: TokenArray, start: int) -> Iterator[tuple[int, Logits]]:
        self._cache.trim(start, row % self.rows)
        for at, stop in self._chunks(start, len(tokens)):
            yield stop, self._graph.run(self._cache, [row % self.rows], tokens[None, at:stop])[0, -1]

    def reusable(self, prompts: Sequence[TokenArray]) -> int:
        found = super().reusable(prompts)
        return found if found and self._graph.takes_chunks else 0

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Short prompts are one chunk anyway, and need not ask the graph."""
        pieces = chunks(start, stop, self._chunk)
        return pieces if len(pieces) == 1 or self._graph.takes_chunks else [(start, stop)]
