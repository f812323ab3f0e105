"""An encoder-decoder as a search sees it: rows of target tokens in, logits of the last token out. Implements
`decoding.Decoder`.

A source is encoded once: the encoder's graph gives the keys and values that the decoder's cross-attention reads, and
all rows of a source (beams, samples) share them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np

from edgellm.decoding.choice import softmax
from edgellm.decoding.decoder import HEADROOM, READING, Reading, Sources
from edgellm.engines.contract import Known, RowEngine
from edgellm.engines.in_place.cohort import Cohort
from edgellm.engines.in_place.sources import NOTHING, FeatureEncoder, SourceEncoder
from edgellm.engines.in_place.unequal_rows import UnequalRows
from edgellm.ort.binding import AnyArray, array_of
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import EncoderDecoderFacts, Manifest, SpeechFacts
from edgellm.types import Array, FloatArray, IntArray, Logits, ProgressHook, TokenArray


class EncoderDecoderEngine(RowEngine):
    """Two graphs, and a cache for each group of rows that are decoded together; not for two threads at once. Rows that
    began together are a group; so are those that came one by one, or each of them where the graph takes positions from
    the length of its batch."""

    def __init__(self, encoder: LoadedGraph, decoder: LoadedGraph, manifest: Manifest[EncoderDecoderFacts]) -> None:
        self.graphs = encoder, decoder
        self._manifest = manifest
        reads = FeatureEncoder if isinstance(manifest.model, SpeechFacts) else SourceEncoder
        self._encoder = reads(encoder, manifest)
        self._encoded = NOTHING  # of the last prefill
        self._groups: list[tuple[Cohort | UnequalRows, IntArray]] = []  # and the numbers of its rows, ascending
        self._in_one = manifest.model.counts_by_row and decoder.device == "cpu"

    @property
    def rows(self) -> int:
        return sum(len(rows) for _, rows in self._groups)

    @property
    def holds_one(self) -> bool:
        return len(self._encoded.sources) == 1

    @property
    def cache_bytes(self) -> int:
        return sum(group.cache.nbytes for group, _ in self._groups)

    @property
    def cross_cache_bytes(self) -> int:
        """Of the keys and values of the sources in use."""
        return sum(group.sources.nbytes for group, _ in self._groups)

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        """The `prompts`, starts of targets, are of one length. Sources that are those of the last prefill are not
        encoded again."""
        assert sources is not None
        self._encode(sources)
        _tell(reading.progress, sources)
        room = self._room(len(prompts[0]), reading.headroom)
        return self._only(len(prompts)).begin(self._encoded, np.stack(prompts), room)

    def read(
        self,
        prompt: TokenArray,
        source: TokenArray | None = None,
        *,
        headroom: int = HEADROOM,
        known: Sequence[Known] = (),
    ) -> Generator[Logits | None]:
        assert source is not None
        same = self._encoder.known_by([source]) == self._encoded.sources
        encoded = self._encoded if same else self._encoder.run([source])
        group, rows = self._group_of_new_rows()
        logits = group.begin(encoded, prompt[None], self._room(len(prompt), headroom))
        self._groups.append((group, np.append(rows, self.rows + len(rows))))
        yield logits

    def decode(self, tokens: TokenArray) -> Logits:
        if len(self._groups) == 1:
            return self._groups[0][0].decode(tokens)
        for group, _ in self._groups:
            group.next_length()  # before any of them has another token
        logits = np.empty((len(tokens), self._manifest.vocab_size), np.float32)
        for group, rows in self._groups:
            logits[rows] = group.decode(tokens[rows])
        return logits

    def reorder(self, parents: TokenArray) -> None:
        before = self._groups
        if len(before) == 1 and len(parents) == len(before[0][1]):
            before[0][0].reorder(parents)
            return
        self._groups = []
        for group, rows in before:
            kept = np.flatnonzero(np.isin(parents, rows))
            if len(kept):
                group.reorder(np.searchsorted(rows, parents[kept]))
                self._groups.append((group, kept))

    def all_logits(self, tokens: TokenArray, source: Array | None = None) -> Iterator[Logits]:
        assert source is not None
        self._encode([source])
        yield from self._only(1).all_logits(self._encoded, tokens)

    def cross_attention(self, tokens: TokenArray, source: Array, *, heads: Sequence[tuple[int, int]]) -> FloatArray:
        """[heads, tokens, source length] float32: how much a target's tokens look at the source, by heads given as
        (layer, head). Reads the target anew, in one run, and does not touch the cache."""
        self._encode([source])
        queries = self._queries(tokens, [layer for layer, _ in heads])
        names, size = self._manifest.model.cross_cache.names(), self._manifest.model.cache.head_dim
        keys = {layer: array_of(self._encoded.tensors[names[2 * layer][1]])[0] for layer in queries}
        return np.stack([
            _weights(queries[layer][:, head * size : (head + 1) * size], keys[layer][head]) for layer, head in heads
        ])  # fmt: skip

    def _queries(self, tokens: TokenArray, layers: Sequence[int]) -> dict[int, Array]:
        """[tokens, heads * head_dim] by the layer."""
        model, decoder = self._manifest.model, self._manifest.graphs["decoder"]
        outputs = {layer: decoder.cross_queries[layer] for layer in layers}
        empty = np.zeros((1, model.cache.num_kv_heads, len(tokens), model.cache.head_dim), model.cache.dtype)
        feeds: dict[str, AnyArray] = {
            "input_ids": tokens[None],
            "decoder_attention_mask": np.ones((1, len(tokens)), np.int64),
            "encoder_attention_mask": self._encoded.mask,
            **{past: empty for past, _ in model.cache.names()},
            **self._encoded.tensors,
        }
        found = self.graphs[1].run(feeds, list(outputs.values()))
        return {layer: value.numpy()[0] for layer, value in zip(outputs, found, strict=True)}

    def _only(self, rows: int) -> Cohort:
        """A cohort, the first of those there are, alone from now on."""
        cohorts = (group for group, _ in self._groups if isinstance(group, Cohort))
        cohort = next(cohorts, None) or Cohort(self.graphs[1], self._manifest)
        self._groups = [(cohort, np.arange(rows))]
        return cohort

    def _group_of_new_rows(self) -> tuple[Cohort | UnequalRows, IntArray]:
        """What the next row goes into, and the rows that it has already; no longer one of the groups."""
        if not self._in_one:
            return Cohort(self.graphs[1], self._manifest), np.arange(0)
        for place, (group, _) in enumerate(self._groups):
            if isinstance(group, UnequalRows):
                return self._groups.pop(place)
        return UnequalRows(self.graphs[1], self._manifest), np.arange(0)

    def _room(self, length: int, headroom: int) -> int:
        return min(length + headroom, self._manifest.context_length)

    def _encode(self, sources: Sequence[Array]) -> None:
        if self._encoder.known_by(sources) != self._encoded.sources:
            self._encoded = NOTHING
            self._encoded = self._encoder.run(sources)


def _weights(queries: Array, keys: Array) -> FloatArray:
    """[tokens, source length] of one head's queries [tokens, head_dim] and keys [source length, head_dim]."""
    scores = queries.astype(np.float32) @ keys.astype(np.float32).T
    return softmax(scores * np.float32(queries.shape[1] ** -0.5))


def _tell(progress: ProgressHook | None, sources: Sequence[Array]) -> None:
    if progress is not None:
        total = sum(map(len, sources))
        progress(total, total)
