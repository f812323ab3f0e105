"""Rows of an encoder-decoder that began together, and where they sit in the batch of its decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgellm.engines.cached import chunks
from edgellm.engines.contract import target_overflow
from edgellm.engines.in_place import open_cache
from edgellm.engines.in_place.binding import BoundDecoder
from edgellm.engines.in_place.sources import NOTHING, Encoded
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import IntArray, Logits, TokenArray

CHUNK = 128  # target tokens per run, where a whole target is read


@dataclass(frozen=True)
class Seats:
    """The decoder's batch has `width` rows for each source: one source's rows may end before another's, and their seats
    are then filled with copies.

    source_of, slot_of: [rows]. first_of: [sources], a row of each. full: the seats are the rows, one by one.
    """

    source_of: IntArray
    slot_of: IntArray
    first_of: IntArray
    width: int
    full: bool

    @classmethod
    def of(cls, source_of: IntArray) -> Seats:
        """source_of: [rows], every source from 0 on at least once."""
        counts = np.bincount(source_of)
        width = int(counts.max())
        rows, order = np.arange(len(source_of)), source_of.argsort(kind="stable")
        starts = counts.cumsum() - counts
        slot_of = np.empty(len(rows), np.int64)
        slot_of[order] = rows + (np.arange(len(counts)) * width - starts).repeat(counts)
        full = width * len(counts) == len(rows) and slot_of.tobytes() == rows.tobytes()
        return cls(source_of, slot_of, order[starts], width, full)

    def filled(self, values: IntArray) -> IntArray:
        """[seats] for values [rows]; an empty seat gets what the first row of its source has."""
        if self.full:
            return values
        result = values[self.first_of].repeat(self.width)
        result[self.slot_of] = values
        return result


class Cohort:
    """The rows have one length. A source's keys and values are there once, however many of the rows it has."""

    def __init__(self, decoder: LoadedGraph, manifest: Manifest[EncoderDecoderFacts]) -> None:
        graph = manifest.graphs["decoder"]
        self.cache = open_cache(manifest.model.cache, manifest.context_length, decoder.device)
        self.sources = NOTHING  # those that still have rows
        self._decoder = BoundDecoder(decoder, graph, manifest.vocab_size, mask="decoder_attention_mask")
        self._seats = Seats.of(np.zeros(1, np.int64))
        self._context_length = manifest.context_length

    def next_length(self) -> int:
        """Of each row with another token. Raises ContextOverflowError where there is no room for it."""
        length = self.cache.lengths[0] + 1
        if length > self._context_length:
            raise target_overflow(self._context_length)
        return length

    def begin(self, sources: Encoded, ids: TokenArray, capacity: int) -> Logits:
        """Start over: [rows, vocab] behind the starts ids [rows, tokens], one for each source."""
        self._start(sources, capacity)
        return self._read(ids)

    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab], until the next call. tokens: [rows]."""
        length = self.next_length()
        self.cache.reserve(length)
        ids = self._seats.filled(tokens)[:, None]
        logits = self._decoder.run(self.cache, ids, [length] * len(ids))
        self.cache.advance(1)
        return logits if self._seats.full else logits[self._seats.slot_of]

    def reorder(self, parents: TokenArray) -> None:
        sources = self._seats.source_of[parents]
        stay = np.bincount(sources) > 0
        seats = Seats.of((stay.cumsum() - 1)[sources])
        self.cache.reorder(seats.filled(self._seats.slot_of[parents]))
        self._look_at(self.sources.take(stay.nonzero()[0].tolist()))
        self._seats = seats

    def all_logits(self, source: Encoded, tokens: TokenArray) -> Iterator[Logits]:
        """Start over: [chunk, vocab] behind each of a target's tokens, chunk by chunk."""
        self._start(source, len(tokens))
        for start, stop in chunks(0, len(tokens), CHUNK):
            yield self._read(tokens[None, start:stop], keep=stop - start)

    def _start(self, sources: Encoded, capacity: int) -> None:
        self._look_at(sources)
        self._seats = Seats.of(np.arange(len(sources.sources)))
        self.cache.reset(len(sources.sources), capacity)

    def _read(self, ids: TokenArray, *, keep: int = 1) -> Logits:
        rows, count = ids.shape
        logits = self._decoder.run(self.cache, ids, [self.cache.lengths[0] + count] * rows, keep=keep)
        self.cache.advance(count)
        return logits

    def _look_at(self, sources: Encoded) -> None:
        """Have the decoder read these, unless it does."""
        if sources is not self.sources:
            self.sources = sources
            self._decoder.bind("encoder_attention_mask", sources.mask)
            for name, tensor in sources.tensors.items():
                self._decoder.bind(name, tensor)
