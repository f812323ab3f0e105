"""Rows of an encoder-decoder that came one by one, of any lengths, as one batch of its decoder."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from edgellm.engines.contract import target_overflow
from edgellm.engines.in_place import open_cache
from edgellm.engines.in_place.binding import BoundDecoder
from edgellm.engines.in_place.places import SourcePlaces
from edgellm.engines.in_place.sources import Encoded
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Logits, TokenArray


class UnequalRows:
    """In main memory, of a graph that counts each row's positions by itself. The decoder's batch has as many rows for
    each place of `sources`: where all sources have equally many rows, side by side, a source has one place, and
    elsewhere one for each of its rows, or for some."""

    def __init__(self, decoder: LoadedGraph, manifest: Manifest[EncoderDecoderFacts]) -> None:
        graph = manifest.graphs["decoder"]
        self.cache = open_cache(manifest.model.cache, manifest.context_length, decoder.device)
        self.sources = SourcePlaces(manifest.model.cross_cache)
        self._decoder = BoundDecoder(decoder, graph, manifest.vocab_size, mask="decoder_attention_mask")
        self._source_of: list[Hashable] = []  # by row
        self._is_laid_out = True
        self._context_length = manifest.context_length

    def next_length(self) -> int:
        """Of the longest row with another token. Raises ContextOverflowError where there is no room for it."""
        length = max(self.cache.lengths) + 1
        if length > self._context_length:
            raise target_overflow(self._context_length)
        return length

    def begin(self, source: Encoded, ids: TokenArray, capacity: int) -> Logits:
        """A row behind the others, of one source: [1, vocab] behind the start ids [1, tokens]."""
        self._lay_out()
        (known,) = source.sources
        self.sources.append(known, source.tensors)
        self.cache.insert(capacity)
        self._source_of.append(known)
        self._is_laid_out = False
        row, place = self.cache.rows - 1, len(self.sources.held) - 1
        self._look_at(range(place, place + 1))
        logits = self._decoder.run(self.cache, ids, [ids.shape[1]], row=row)
        self.cache.advance(ids.shape[1], range(row, row + 1))
        return logits

    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab], until the next call. tokens: [rows]."""
        self.cache.reserve(self.next_length())
        self._lay_out()
        logits = self._decoder.run(self.cache, tokens[:, None], [length + 1 for length in self.cache.lengths])
        self.cache.advance(1)
        return logits

    def reorder(self, parents: TokenArray) -> None:
        self.cache.reorder(parents)
        sources = [self._source_of[parent] for parent in parents.tolist()]
        self._is_laid_out = self._is_laid_out and sources == self._source_of
        self._source_of = sources

    def _lay_out(self) -> None:
        """Have the places hold the rows' sources, and the decoder read all of them."""
        if self._is_laid_out:
            return
        self.sources.arrange(self._source_of[:: rows_for_each(self._source_of)])
        self._look_at(range(len(self.sources.held)))
        self._is_laid_out = True

    def _look_at(self, places: range) -> None:
        self._decoder.bind("encoder_attention_mask", self.sources.mask(places))
        for name, tensor in self.sources.tensors(places).items():
            self._decoder.bind(name, tensor)


def rows_for_each(sources: Sequence[Hashable]) -> int:
    """The largest number of rows by which these can be cut into parts that have one source each."""
    count = len(sources)
    fits = (each for each in range(count, 1, -1) if count % each == 0)
    return next((each for each in fits if all(sources[i] == sources[i - i % each] for i in range(count))), 1)
