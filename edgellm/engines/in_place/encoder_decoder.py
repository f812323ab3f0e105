"""An encoder-decoder as a search sees it: rows of target tokens in, logits of the last token out. Implements
`decoding.Decoder`.

A source is encoded once: the encoder's graph gives the keys and values that the decoder's cross-attention reads, and
all rows of a source (beams, samples) share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgellm.engines.contract import HEADROOM, chunks
from edgellm.engines.in_place import open_cache
from edgellm.engines.in_place.binding import BoundDecoder
from edgellm.engines.in_place.seats import Seats
from edgellm.engines.in_place.sources import NOTHING, Encoded, SourceEncoder
from edgellm.errors import ContextOverflowError
from edgellm.ort.session import Session
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Logits, ProgressHook, TokenArray

CHUNK = 128  # target tokens per run, where a whole target is read


class EncoderDecoderEngine:
    """Two sessions and a cache of its own; not for two threads at once. All rows have the same length."""

    def __init__(self, encoder: Session, decoder: Session, manifest: Manifest[EncoderDecoderFacts]) -> None:
        self.sessions = encoder, decoder
        self._manifest = manifest
        self._encoder = SourceEncoder(encoder, manifest)
        self._decoder = BoundDecoder(
            decoder, manifest.graphs["decoder"], manifest.vocab_size, mask="decoder_attention_mask"
        )
        self._cache = open_cache(manifest.model.cache, manifest.context_length, decoder.device)
        self._encoded = NOTHING  # of the last prefill
        self._active = NOTHING  # those of them that still have rows
        self._seats = Seats.of(np.zeros(1, np.int64))

    @property
    def rows(self) -> int:
        """Sources of the last prefill."""
        return len(self._encoded.sources)

    @property
    def cache_bytes(self) -> int:
        """Of the rows' own cache, without the sources' keys and values."""
        return self._cache.nbytes

    @property
    def cross_cache_bytes(self) -> int:
        """Of the keys and values of the sources in use."""
        return self._active.nbytes

    def prefill(
        self,
        prompts: Sequence[TokenArray],
        sources: Sequence[TokenArray] | None = None,
        *,
        headroom: int = HEADROOM,
        progress: ProgressHook | None = None,
    ) -> Logits:
        """Start over: [rows, vocab] behind the starts `prompts`, which are of one length, each of one of the `sources`.
        Sources that are those of the last prefill are not encoded again. `headroom`: tokens to make
        room for beyond the starts."""
        assert sources is not None
        ids = np.stack(prompts)
        self._encode(sources, progress)
        self._read(self._encoded)
        self._seats = Seats.of(np.arange(len(ids)))
        length = ids.shape[1]
        self._cache.reset(len(ids), min(length + headroom, self._manifest.context_length))
        logits = self._decoder.run(self._cache, ids, [length] * len(ids))
        self._cache.advance(length)
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
        length = self._cache.lengths[0] + 1
        if length > self._manifest.context_length:
            raise ContextOverflowError(
                f"the target has reached the model's longest of {self._manifest.context_length} tokens; "
                "ask for fewer new tokens"
            )
        self._cache.reserve(length)
        ids = self._seats.filled(tokens)[:, None]
        logits = self._decoder.run(self._cache, ids, [length] * len(ids))
        self._cache.advance(1)
        return logits if self._seats.full else logits[self._seats.slot_of]

    def reorder(self, parents: TokenArray) -> None:
        left, source_of = np.unique(self._seats.source_of[parents], return_inverse=True)
        seats = Seats.of(source_of)
        self._cache.reorder(seats.filled(self._seats.slot_of[parents]))
        self._read(self._active.take(left.tolist()))
        self._seats = seats

    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        """[chunk, vocab] behind each of the target's tokens, chunk by chunk."""
        assert source is not None
        self._encode([source])
        self._read(self._encoded)
        self._seats = Seats.of(np.zeros(1, np.int64))
        self._cache.reset(1, len(tokens))
        for start, stop in chunks(0, len(tokens), CHUNK):
            ids = tokens[None, start:stop]
            logits = self._decoder.run(self._cache, ids, [stop], keep=stop - start)
            yield logits.copy() if stop - start == 1 else logits  # of a single position: memory that is used again
            self._cache.advance(stop - start)

    def _read(self, encoded: Encoded) -> None:
        """Have the decoder read these sources, unless it does."""
        if encoded is not self._active:
            self._active = encoded
            self._decoder.bind("encoder_attention_mask", encoded.mask)
            for name, tensor in encoded.tensors.items():
                self._decoder.bind(name, tensor)

    def _encode(self, sources: Sequence[TokenArray], progress: ProgressHook | None = None) -> None:
        wanted = tuple(tuple(source.tolist()) for source in sources)
        if wanted != self._encoded.sources:
            self._encoded = NOTHING
            self._encoded = self._encoder.run(wanted)
        if progress is not None:
            total = sum(map(len, wanted))
            progress(total, total)
