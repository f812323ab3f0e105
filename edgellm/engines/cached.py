"""What engines of decoder-only models have in common: how prompts are read, what is taken over, and what is held."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgellm.decoding.decoder import HEADROOM, READING, Reading, Sources
from edgellm.engines.contract import Known, RowEngine
from edgellm.engines.history import MIN_CHUNK, HeldRow, History
from edgellm.errors import ContextOverflowError
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import Array, Logits, TokenArray

LAST = -1  # a row
SPARE = 512  # tokens to make room for behind what is put into a cache


class RowCache(Protocol):
    """What both kinds of cache can do."""

    lengths: list[int]

    @property
    def rows(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def trim(self, length: int, row: int | None = None) -> None: ...

    def restorable(self, length: int, row: int = 0) -> int: ...

    def insert(self, capacity: int) -> None: ...

    def reorder(self, parents: npt.ArrayLike) -> None: ...

    def compact(self) -> None: ...

    def limit(self, max_length: int) -> None: ...

    def used(self, row: int = 0) -> list[Array]: ...

    def recall(self, other: Any) -> None: ...

    def place(self, length: int, spare: int) -> AbstractContextManager[list[Array]]: ...


Cache = TypeVar("Cache", bound=RowCache)


class CachedEngine(RowEngine, Generic[Cache]):
    """A decoder-only model: a graph and a cache of its own."""

    def __init__(
        self, manifest: Manifest[DecoderFacts], cache: Cache, prefill_chunk: int, reuse_generated: bool
    ) -> None:
        self._manifest = manifest
        self._cache = cache
        self._chunk = max(prefill_chunk, MIN_CHUNK)
        self.history = History(manifest, reuse_generated)

    @property
    def rows(self) -> int:
        return self._cache.rows

    @property
    def holds_one(self) -> bool:
        return self.rows == 1

    @property
    def cache_bytes(self) -> int:
        return self._cache.nbytes

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        """A single prompt that continues what is cached computes only what is new."""
        cached = self.reusable(prompts)
        if not cached:
            self._start(len(prompts), max(map(len, prompts)) + reading.headroom)
        self.history.begin(prompts, cached)
        logits = np.empty((len(prompts), self._manifest.vocab_size), np.float32)
        before, total = 0, sum(map(len, prompts))
        try:
            for row, prompt in enumerate(prompts):
                for done, last in self._fill(row, prompt, start=cached):
                    logits[row] = last
                    if reading.progress is not None:
                        reading.progress(before + done, total)
                before += len(prompt)
        finally:
            self.history.cut(self._cache.lengths)  # what was not read, where the hook stopped it
        return logits

    def read(
        self,
        prompt: TokenArray,
        source: TokenArray | None = None,
        *,
        headroom: int = HEADROOM,
        known: Sequence[Known] = (),
    ) -> Generator[Logits | None]:
        logits = np.empty((1, self._manifest.vocab_size), np.float32)
        self._cache.insert(min(len(prompt) + headroom, self._manifest.context_length))
        self.history.insert(prompt)
        try:
            for done, last in self._fill(LAST, prompt, start=self._give(known)):
                if done < len(prompt):
                    yield None
                logits[0] = last
        except BaseException:
            self.drop([self.rows - 1])
            raise
        yield logits

    def reusable(self, prompts: Sequence[TokenArray]) -> int:
        """How many tokens of a single prompt `prefill` would not compute again."""
        shared = self.history.reusable(prompts)
        return self._cache.restorable(shared) if shared else 0

    @property
    @abstractmethod
    def lookahead(self) -> int:
        """The most tokens that `verify` may be given now: below 2 where they would not get the logits that `decode`
        gives them one by one."""

    @abstractmethod
    def verify(self, tokens: TokenArray) -> Logits:
        """Append tokens [n] to the only row, in one run. Returns [n, vocab] float32, what follows each."""

    def forget(self, count: int) -> None:
        """Take the last `count` tokens off the only row."""
        self.trim(self._cache.lengths[0] - count)

    def trim(self, length: int) -> None:
        """Forget what lies beyond `length` tokens in every row, and before it what the cache cannot do without."""
        self._cache.trim(length)
        self.history.cut(self._cache.lengths)

    def reorder(self, parents: TokenArray) -> None:
        self._cache.reorder(parents)
        self.history.reorder(parents.tolist())

    def keep_first(self, length: int) -> None:
        """Go on with the first row alone and `length` tokens of it, and free what the others took."""
        if self.rows > 1:
            self.reorder(np.zeros(1, np.int64))
        self.trim(length)
        self._cache.compact()

    def limit(self, tokens: int) -> None:
        """Let no row take the memory of more than `tokens` tokens; what lies beyond is forgotten."""
        self._cache.limit(tokens)
        self.history.cut(self._cache.lengths)

    def held(self) -> tuple[HeldRow, list[Array]]:
        """The only row, and its keys and values, layer by layer: [num_kv_heads, tokens, head_dim] each, to be read."""
        (row,) = self.history.rows
        return row.copy(), self._cache.used()

    @contextmanager
    def receive(self, row: HeldRow) -> Iterator[list[Array]]:
        """Start over with a row that another engine held. Yields its keys and values, as `held` has them, to be filled
        in; after an error the engine is of no use."""
        with self._cache.place(len(row.tokens), SPARE) as arrays:
            yield arrays
        self.history.rows = [row.copy()]

    def take_over(self, other: AnyEngine) -> None:
        """Start over with the row that an engine of the same kind holds, in memory of its own."""
        row, arrays = other.held()
        with self.receive(row) as targets:
            for target, array in zip(targets, arrays, strict=True):
                target[...] = array
        self._cache.recall(other._cache)

    def _overflow(self) -> ContextOverflowError:
        """Of a row that has no room for another token."""
        return ContextOverflowError(
            f"the sequence has reached the model's context of {self._manifest.context_length} tokens; "
            "ask for fewer new tokens or shorten the prompt"
        )

    @abstractmethod
    def _start(self, rows: int, length: int) -> None:
        """Empty rows, for about `length` tokens each."""

    @abstractmethod
    def _fill(self, row: int, tokens: TokenArray, start: int) -> Iterator[tuple[int, Logits]]:
        """Feed tokens[start:] to a row, or to the one that is LAST at each piece, of which tokens[:start] stay. Yields
        after each chunk its end and [vocab]."""

    def _give(self, known: Sequence[Known]) -> int:
        """Put what `taken` gave into the last row, which is empty. Returns how many tokens it has then."""
        assert not known
        return 0


def chunks(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Pieces of `size` tokens, the last one shorter or, where a single token would be left over, one longer."""
    cuts = list(range(start, stop, size))
    if len(cuts) > 1 and stop - cuts[-1] < MIN_CHUNK:
        cuts.pop()
    return list(zip(cuts, [*cuts[1:], stop], strict=True))


AnyEngine = CachedEngine[Any]
