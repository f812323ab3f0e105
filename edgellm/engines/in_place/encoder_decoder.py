"""An encoder-decoder as a search sees it: rows of target tokens in, logits of the last token out. Implements
`decoding.Decoder`.

A source is encoded once: the encoder's graph gives the keys and values that the decoder's cross-attention reads, and
all rows of a source (beams, samples) share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.engines.contract import HEADROOM, chunks
from edgellm.engines.in_place.cache import KVCache, open_cache
from edgellm.engines.in_place.decoder import AttentionMask
from edgellm.errors import ContextOverflowError
from edgellm.ort.session import Binding, DeviceArray, Session
from edgellm.ort.tensor_types import DTYPES
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.types import Array, IntArray, Logits, ProgressHook, TokenArray

CHUNK = 128  # target tokens per run, where a whole target is read


@dataclass(frozen=True)
class Encoded:
    """Encoded sources. mask: [sources, longest] int64, ones for tokens. tensors: by the decoder's input, the keys and
    values of a layer, [sources, heads, longest, head_dim]."""

    sources: tuple[tuple[int, ...], ...]
    mask: IntArray
    tensors: dict[str, DeviceArray | Array]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def take(self, kept: Sequence[int]) -> Encoded:
        """Some of the sources, in this order."""
        if list(kept) == list(range(len(self.sources))):
            return self
        tensors: dict[str, DeviceArray | Array] = {
            name: np.ascontiguousarray(array_of(tensor)[list(kept)]) for name, tensor in self.tensors.items()
        }
        return Encoded(tuple(self.sources[i] for i in kept), np.ascontiguousarray(self.mask[list(kept)]), tensors)


NOTHING = Encoded((), np.empty((0, 0), np.int64), {})


@dataclass(frozen=True)
class Seats:
    """Where the search's rows sit in the decoder's batch, which has `width` rows for each source: one source's rows may
    end before another's, and their seats are then filled with copies.

    source_of, slot_of: [rows].
    """

    source_of: IntArray
    slot_of: IntArray
    width: int

    @classmethod
    def of(cls, source_of: IntArray) -> Seats:
        """source_of: [rows], ascending, every source from 0 on at least once."""
        counts = np.bincount(source_of)
        width = int(counts.max())
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = np.arange(len(source_of)) - first[source_of]
        return cls(source_of, source_of * width + place, width)

    @property
    def slots(self) -> int:
        return self.width * (int(self.source_of[-1]) + 1)

    @property
    def full(self) -> bool:
        return self.slots == len(self.slot_of)

    def filled(self, values: IntArray) -> IntArray:
        """[slots] for values [rows]; an empty seat gets what the first row of its source has."""
        if self.full:
            return values
        result = np.repeat(values[np.searchsorted(self.source_of, np.arange(self.slots // self.width))], self.width)
        result[self.slot_of] = values
        return result


class EncoderDecoderEngine:
    """Two sessions and a cache of its own; not for two threads at once. All rows have the same length."""

    def __init__(self, encoder: Session, decoder: Session, manifest: Manifest[EncoderDecoderFacts]) -> None:
        self.sessions = encoder, decoder
        self._manifest = manifest
        self._encoder = _Encoder(encoder, manifest)
        self._decoder = _Decoder(decoder, manifest)
        self._cache = open_cache(manifest.model.cache, manifest.context_length, decoder.device)
        self._encoded = NOTHING  # of the last prefill
        self._active = NOTHING  # those of them that still have rows
        self._seats = Seats(np.zeros(1, np.int64), np.zeros(1, np.int64), 1)

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
        self._active = self._encoded
        self._seats = Seats.of(np.arange(len(ids)))
        length = ids.shape[1]
        self._cache.reset(len(ids), min(length + headroom, self._manifest.context_length))
        logits = self._decoder.run(self._cache, self._active, ids, length)
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
        logits = self._decoder.run(self._cache, self._active, ids, length)
        self._cache.advance(1)
        return logits if self._seats.full else logits[self._seats.slot_of]

    def reorder(self, parents: TokenArray) -> None:
        left, source_of = np.unique(self._seats.source_of[parents], return_inverse=True)
        seats = Seats.of(source_of)
        self._cache.reorder(seats.filled(self._seats.slot_of[parents]))
        self._active, self._seats = self._active.take(left.tolist()), seats

    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        """[chunk, vocab] behind each of the target's tokens, chunk by chunk."""
        assert source is not None
        self._encode([source])
        self._active, self._seats = self._encoded, Seats.of(np.zeros(1, np.int64))
        self._cache.reset(1, len(tokens))
        for start, stop in chunks(0, len(tokens), CHUNK):
            ids = tokens[None, start:stop]
            yield self._decoder.run(self._cache, self._active, ids, stop, keep=stop - start)
            self._cache.advance(stop - start)

    def _encode(self, sources: Sequence[TokenArray], progress: ProgressHook | None = None) -> None:
        wanted = tuple(tuple(source.tolist()) for source in sources)
        if wanted != self._encoded.sources:
            self._encoded = self._active = NOTHING
            self._encoded = self._encoder.run(wanted)
        if progress is not None:
            total = sum(map(len, wanted))
            progress(total, total)


class _Encoder:
    """The encoder's graph."""

    def __init__(self, session: Session, manifest: Manifest[EncoderDecoderFacts]) -> None:
        self._session = session
        self._names = manifest.model.cross_cache.names()

    def run(self, sources: tuple[tuple[int, ...], ...]) -> Encoded:
        longest = max(map(len, sources))
        ids, mask = np.zeros((2, len(sources), longest), np.int64)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
            mask[row, : len(source)] = 1
        binding = self._session.bind()  # a used one would want outputs of the same shape again
        binding.input("input_ids", ids)
        binding.input("attention_mask", mask)
        for present, _ in self._names:
            binding.new_output(present, self._session.device)
        binding.run()
        tensors: dict[str, DeviceArray | Array] = {past: binding.fetch_device(present) for present, past in self._names}
        return Encoded(sources, mask, tensors)


class _Decoder:
    """The decoder's graph, its inputs bound again only where they changed."""

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self._binding: Binding = session.bind()
        self._vocab_size = manifest.vocab_size
        self._logits_dtype = DTYPES[session.output_types["logits"]]
        self._mask = AttentionMask()
        self._encoded = NOTHING
        self._cache_version = -1
        self._ids: TokenArray = np.empty((0, 0), np.int64)
        self._keep = 1
        self._logits: npt.NDArray[np.floating] = np.empty((0, 1, self._vocab_size), self._logits_dtype)

    def run(self, cache: KVCache, encoded: Encoded, ids: TokenArray, length: int, *, keep: int = 1) -> Logits:
        """[rows, vocab] float32 of the last position, until the next run; or [keep, vocab] of a single row.

        ids: [rows, tokens], the last of `length` tokens of each row."""
        binding = self._binding
        if cache.version != self._cache_version:
            cache.bind(binding)
            self._cache_version = cache.version
        if encoded is not self._encoded:
            self._bind_sources(encoded)
        if not binding.in_place or self._ids.shape != ids.shape:
            self._ids = np.array(ids)
            binding.input("input_ids", self._ids)
        self._ids[...] = ids
        binding.input_at("decoder_attention_mask", *self._mask.of([length] * len(ids)))
        self._bind_logits(len(ids), keep)
        binding.run()
        logits = binding.fetch("logits")[0] if keep > 1 else self._logits[:, 0]
        return logits.astype(np.float32, copy=False)

    def _bind_sources(self, encoded: Encoded) -> None:
        self._binding.input("encoder_attention_mask", encoded.mask)
        for name, tensor in encoded.tensors.items():
            if isinstance(tensor, DeviceArray):
                self._binding.device_input(name, tensor)
            else:
                self._binding.input(name, tensor)
        self._encoded = encoded

    def _bind_logits(self, rows: int, keep: int) -> None:
        if keep != self._keep:
            self._binding.input("logits_to_keep", np.array([keep], np.int64))
        if keep > 1:
            self._binding.new_output("logits")
        elif len(self._logits) != rows or self._keep > 1:
            self._logits = np.empty((rows, 1, self._vocab_size), self._logits_dtype)
            self._binding.output("logits", self._logits)
        self._keep = keep


def array_of(tensor: DeviceArray | Array) -> Array:
    return tensor.numpy() if isinstance(tensor, DeviceArray) else tensor
