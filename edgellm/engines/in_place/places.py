"""Sources of an encoder-decoder that come and go, side by side in memory that its decoder reads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from edgellm.engines.in_place.host_cache import SCRATCH, copy_plan
from edgellm.errors import OutOfMemoryError
from edgellm.ort.binding import AnyArray, array_of
from edgellm.package.manifest import CrossCacheLayout
from edgellm.types import Array, IntArray

LENGTH_STEP = 32  # tokens


class SourcePlaces:
    """The keys and values of a source for each place; a source may have several. The memory is that of the longest
    source for each; behind the others' ends there are zeros, which a mask hides."""

    def __init__(self, layout: CrossCacheLayout) -> None:
        self._layout = layout
        self.held: list[Hashable] = []  # by place
        self._lengths: list[int] = []  # by place
        self._ends: list[int] = []  # of what was written into each place there is memory for
        self._buffers: dict[str, Array] = {past: self._empty(0, 0) for _, past in layout.names()}

    @property
    def nbytes(self) -> int:
        """Bytes of address space; the operating system commits memory as it is used."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def append(self, source: Hashable, tensors: Mapping[str, AnyArray]) -> None:
        """Another place, behind the others, for a source's tensors [1, heads, length, head_dim]."""
        length = next(iter(tensors.values())).shape[2]
        self._fit(range(len(self.held)), [*self._lengths, length])
        place = len(self.held)
        for name, tensor in tensors.items():
            self._buffers[name][place, :, :length] = array_of(tensor)[0]
        self._end(place, length)
        self.held.append(source)
        self._lengths.append(length)

    def arrange(self, wanted: Sequence[Hashable]) -> None:
        """Have the places hold these, all of which are held."""
        parents = self._parents(wanted)
        lengths = [self._lengths[parent] for parent in parents]
        if not self._fit(parents, lengths):
            for buffer in self._buffers.values():
                self._move(buffer, parents)
            for place, length in enumerate(lengths):
                self._end(place, length)
        self.held, self._lengths = list(wanted), lengths

    def mask(self, places: range) -> IntArray:
        """[places, length] int64: ones for the tokens of some places, then zeros."""
        lengths = np.array([self._lengths[place] for place in places])
        return (np.arange(self._length) < lengths[:, None]).astype(np.int64)

    def tensors(self, places: range) -> dict[str, Array]:
        """By the decoder's input, [places, heads, length, head_dim], until the places change."""
        return {name: buffer[places.start : places.stop] for name, buffer in self._buffers.items()}

    @property
    def _length(self) -> int:
        return self._shape[2]

    @property
    def _shape(self) -> tuple[int, ...]:
        return next(iter(self._buffers.values())).shape

    def _parents(self, wanted: Sequence[Hashable]) -> list[int]:
        """For each place one that holds what is wanted there: itself, or else one that stays, if there are such."""
        stays = {held: place for place, held in enumerate(self.held)}
        stays |= {
            held: place for place, (held, want) in enumerate(zip(self.held, wanted, strict=False)) if held == want
        }
        kept = len(self.held)
        return [i if i < kept and self.held[i] == want else stays[want] for i, want in enumerate(wanted)]

    def _fit(self, parents: Sequence[int], lengths: Sequence[int]) -> bool:
        """Whether there were new buffers to be made for places of these lengths, the first of which go on from
        `parents`: where the old ones are too small, or more than twice too large."""
        count, length = self._shape[0], self._length
        places = 1 << (len(lengths) - 1).bit_length()
        longest = -(-max(lengths) // LENGTH_STEP) * LENGTH_STEP
        if len(lengths) <= count <= 2 * places and longest <= length <= 2 * longest:
            return False
        try:
            for name, old in self._buffers.items():
                new = self._empty(places, longest)
                for place, parent in enumerate(parents):
                    new[place, :, : self._lengths[parent]] = old[parent, :, : self._lengths[parent]]
                self._buffers[name] = new
        except MemoryError as error:
            raise OutOfMemoryError(
                f"no memory for the keys and values of {len(lengths)} sources of up to {max(lengths)} tokens; "
                "use shorter sources, or fewer rows or beams"
            ) from error
        self._ends = [*lengths, *[0] * (places - len(lengths))]
        return True

    def _move(self, buffer: Array, parents: Sequence[int]) -> None:
        spare = buffer[:0]
        for target, source in copy_plan(parents):
            if target == SCRATCH:
                spare = buffer[source].copy()
            else:
                used = self._lengths[parents[target]]
                buffer[target, :, :used] = (spare if source == SCRATCH else buffer[source])[:, :used]

    def _end(self, place: int, length: int) -> None:
        """Zeros behind so many tokens of a place."""
        for buffer in self._buffers.values() if length < self._ends[place] else ():
            buffer[place, :, length : self._ends[place]] = 0
        self._ends[place] = length

    def _empty(self, places: int, length: int) -> Array:
        shape = places, self._layout.num_heads, length, self._layout.head_dim
        return np.zeros(shape, self._layout.dtype)
