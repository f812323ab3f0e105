"""The engine for graphs that concatenate their cache: rows of tokens in, logits of the last token out, as `Engine`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgellm.concat.cache import ConcatCache
from edgellm.concat.graph import ConcatGraph
from edgellm.decoding.decoder import Logits, TokenArray
from edgellm.engine import MIN_CHUNK, Progress, chunks
from edgellm.errors import ContextOverflowError
from edgellm.manifest import Manifest


class ConcatEngine:
    """A graph and a cache of its own; not for two threads at once.

    Rows are prefilled one after the other, in chunks where the graph takes chunks. They are then decoded together as
    far as that gives each row what it would get by itself: all of them, those of one length, or each by itself.
    """

    def __init__(self, graph: ConcatGraph, manifest: Manifest, *, prefill_chunk: int = 128) -> None:
        self._graph = graph
        self._manifest = manifest
        self._chunk = max(prefill_chunk, MIN_CHUNK)
        self._cache = ConcatCache(manifest.kv_cache)
        self._tokens: list[list[int]] = []  # of each row, as far as they are in the cache
        self._read = 0  # how many of the first row's came as a prompt; decoding added the others
        self.headroom = 0  # this cache needs no room made ready
        self.progress: Progress | None = None

    @property
    def rows(self) -> int:
        return self._cache.rows

    @property
    def cache_bytes(self) -> int:
        return self._cache.nbytes

    def prefill(self, prompts: Sequence[TokenArray]) -> Logits:
        """[rows, vocab] of the last tokens. A single prompt that continues what is cached computes only what is new."""
        cached = self._common_prefix(prompts)
        if cached:
            self._cache.trim(cached)
        else:
            self._cache.reset(len(prompts))
        self._tokens = [prompt.tolist() for prompt in prompts]
        self._read = len(prompts[0])
        logits = np.empty((len(prompts), self._manifest.vocab_size), np.float32)
        before, total = 0, sum(map(len, prompts))
        for row, prompt in enumerate(prompts):
            for start, stop in self._chunks(cached, len(prompt)):
                logits[row] = self._graph.run(self._cache, [row], prompt[None, start:stop])[0, -1]
                if self.progress is not None:
                    self.progress(before + stop, total)
            before += len(prompt)
        return logits

    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab] float32, until the next call. Raises ContextOverflowError where a row is full."""
        if max(self._cache.lengths) >= self._manifest.context_length:
            raise ContextOverflowError(
                f"the sequence has reached the model's context of {self._manifest.context_length} tokens; "
                "ask for fewer new tokens or shorten the prompt"
            )
        for row, token in zip(self._tokens, tokens.tolist(), strict=True):
            row.append(token)
        logits = np.empty((len(tokens), self._manifest.vocab_size), np.float32)
        for rows in self._groups():
            logits[rows] = self._graph.run(self._cache, rows, tokens[rows, None])[:, 0]
        return logits

    @property
    def lookahead(self) -> int:
        """The most tokens that `verify` may be given now; below 2 there is only `decode`."""
        if self.rows != 1 or not self._graph.takes_chunks:
            return 1
        return min(self._chunk, self._manifest.context_length - self._cache.lengths[0])

    def verify(self, tokens: TokenArray) -> Logits:
        """Append tokens [n] to the only row, in one run. Returns [n, vocab] float32, what follows each."""
        assert self.rows == 1
        self._tokens[0] += tokens.tolist()
        logits: Logits = self._graph.run(self._cache, [0], tokens[None])[0]
        return logits

    def forget(self, count: int) -> None:
        """Take the last `count` tokens off the only row."""
        del self._tokens[0][-count:]
        self._cache.trim(len(self._tokens[0]))

    def reorder(self, parents: TokenArray) -> None:
        self._cache.reorder(parents)
        self._tokens = [list(self._tokens[parent]) for parent in parents.tolist()]

    def all_logits(self, tokens: TokenArray) -> Iterator[Logits]:
        """[chunk, vocab] for one sequence, chunk by chunk."""
        self._cache.reset(1)
        self._tokens = [tokens.tolist()]
        self._read = len(tokens)
        for start, stop in self._chunks(0, len(tokens)):
            yield self._graph.run(self._cache, [0], tokens[None, start:stop])[0]

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Short prompts are one chunk anyway, and need not ask the graph."""
        pieces = chunks(start, stop, self._chunk)
        return pieces if len(pieces) == 1 or self._graph.takes_chunks else [(start, stop)]

    def _groups(self) -> list[list[int]]:
        """The rows, those together that may run together."""
        lengths = self._cache.lengths
        if len(lengths) == 1 or (len(set(lengths)) > 1 and self._graph.takes_lengths and self._graph.takes_batches):
            return [list(range(len(lengths)))]
        if not self._graph.takes_batches:
            return [[row] for row in range(len(lengths))]
        return [[row for row, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]

    def _common_prefix(self, prompts: Sequence[TokenArray]) -> int:
        """How many tokens of a single prompt are in the cache already, as reading the whole prompt would have left them
        there, so that a chunk or more is left to compute."""
        if len(prompts) > 1 or len(self._tokens) != 1:
            return 0
        length = self._cache.lengths[0]
        if self._manifest.decoding_rounds_apart:
            length = min(length, self._read)
        held = np.array(self._tokens[0][:length], np.int64)
        shared = max(0, min(len(held), len(prompts[0]) - MIN_CHUNK))
        different = np.flatnonzero(held[:shared] != prompts[0][:shared])
        found = int(different[0]) if len(different) else shared
        return found if found and self._graph.takes_chunks else 0
