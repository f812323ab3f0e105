"""The engine for encoder-decoder graphs that concatenate their cache, behind the interface of `EncoderDecoderEngine`:
rows of target tokens in, logits of the last token out."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np

from edgellm.decoding.decoder import HEADROOM, READING, Reading, Sources
from edgellm.engines.concat.cache import ConcatCache
from edgellm.engines.concat.encoder_decoder_graphs import ConcatEncoderDecoder, Cross, Source
from edgellm.engines.contract import Known, RowEngine, target_overflow
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Logits, ProgressHook, TokenArray


class ConcatEncoderDecoderEngine(RowEngine):
    """Graphs and a cache of its own; not for two threads at once.

    Sources are encoded, and targets begun, one by one; rows of one length are then decoded together as far as that
    gives each what it would get by itself: all of them, those with sources of one length, or each alone.
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
        return self._cache.rows

    @property
    def holds_one(self) -> bool:
        return len(self._encoded) == 1

    @property
    def cache_bytes(self) -> int:
        return self._cache.nbytes

    @property
    def cross_cache_bytes(self) -> int:
        """Of the keys and values of the sources in use, which are there once for each row."""
        return sum(cross.nbytes for cross in self._read.values())

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        """Sources that are those of the last prefill are not encoded again."""
        assert sources is not None
        self._encode(sources, reading.progress)
        self._cache.reset(len(prompts))
        logits = np.empty((len(prompts), self._manifest.vocab_size), np.float32)
        for row, prompt in enumerate(prompts):
            found, self._sources[row] = self._graphs.begin(self._cache, row, self._sources[row], prompt)
            logits[row] = found[-1]
        return logits

    def read(
        self,
        prompt: TokenArray,
        source: TokenArray | None = None,
        *,
        headroom: int = HEADROOM,
        known: Sequence[Known] = (),
    ) -> Generator[Logits | None]:
        assert source is not None
        row, found = self.rows, self._encoded.get(tuple(source.tolist()))
        encoded = self._graphs.encode(source) if found is None else found
        self._cache.insert(0)
        self._sources.append(encoded)
        try:
            logits, self._sources[row] = self._graphs.begin(self._cache, row, encoded, prompt)
        except BaseException:
            self.drop([row])
            raise
        yield logits[-1:]

    def decode(self, tokens: TokenArray) -> Logits:
        if max(self._cache.lengths) >= self._manifest.context_length:
            raise target_overflow(self._manifest.context_length)
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
        assert source is not None
        self._encode([source])
        self._cache.reset(1)
        logits, self._sources[0] = self._graphs.begin(self._cache, 0, self._sources[0], tokens)
        yield logits

    def _groups(self) -> list[list[int]]:
        """Rows that may run together: the graphs take positions from the length of the batch."""
        lengths, sources = self._cache.lengths, [source.length for source in self._sources]
        if len(set(lengths)) == 1:
            return self._graphs.groups(sources)
        alike = [[row for row, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]
        return [[rows[i] for i in group] for rows in alike for group in self._graphs.groups([sources[i] for i in rows])]

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
