"""A cache on the device that runs the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources

import numpy as np

from edgellm.engines.in_place.cache import CHUNK, KVCache
from edgellm.ort.binding import DeviceArray
from edgellm.ort.library import Device
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import CacheLayout
from edgellm.types import Array

MAX_ELEMENTS = 2**31 - 1  # of one buffer: CUDA's Gather counts in 32 bits


class DeviceCache(KVCache):
    """Buffers that ONNX Runtime owns on a device. Rows move through a small graph, so nothing passes through the host.

    Several tensors of one shape share a buffer of [slots, rows, heads, capacity, size]: one run moves them all.
    """

    def __init__(self, layout: CacheLayout, max_length: int, device: Device, chunk: int = CHUNK) -> None:
        super().__init__(layout, max_length, chunk)
        self.device = device
        self._buffers: list[DeviceArray] = []
        self._slots: list[list[int]] = []  # of each buffer: the tensors in it, by their numbers
        self._dtype = np.dtype(layout.array_dtype)  # of all tensors
        graph = resources.files("edgellm.engines") / "graphs" / f"move_rows_{layout.dtype}.onnx"
        self._binding = LoadedGraph(graph.read_bytes(), device, threads=1, spinning=False).bind()

    def _allocated_rows(self) -> int:
        return self._buffers[0].shape[1] if self._buffers else 0

    def _addresses(self) -> Sequence[int]:
        addresses: dict[int, int] = {}
        for buffer, slots in zip(self._buffers, self._slots, strict=True):
            slot_bytes = math.prod(buffer.shape[1:]) * self._dtype.itemsize
            addresses |= {tensor: buffer.address + place * slot_bytes for place, tensor in enumerate(slots)}
        return [addresses[tensor] for tensor in range(len(self.tensors))]

    def _free(self) -> None:
        self._buffers, self._slots = [], []

    def _allocate(self, rows: int, capacity: int) -> None:
        """Zeros: kernels may multiply what lies beyond a row's end by zero, and a NaN there would stay NaN."""
        kinds: dict[tuple[int, int, int], list[int]] = {}
        for i, tensor in enumerate(self.tensors):
            kinds.setdefault((tensor.heads, tensor.size, tensor.recurrent), []).append(i)
        for (heads, size, _), alike in kinds.items():
            length = self.slots(self.tensors[alike[0]], capacity)
            per_buffer = max(1, MAX_ELEMENTS // (rows * heads * length * size))
            for first in range(0, len(alike), per_buffer):
                slots = alike[first : first + per_buffer]
                self._binding.input("cache", np.zeros((len(slots), 1, heads, 1, size), self._dtype))
                self._buffers.append(self._moved([0] * rows, used=1, capacity=length))
                self._slots.append(slots)

    def _grow(self, rows: int, capacity: int) -> None:
        self._move([*range(self.rows), *[0] * (rows - self.rows)], capacity)

    def _reorder(self, parents: Sequence[int]) -> None:
        self._move(parents, self.capacity)
        self.version += 1

    def _host_buffers(self) -> Sequence[Array]:
        found: dict[int, Array] = {}
        for buffer, slots in zip(self._buffers, self._slots, strict=True):
            found |= zip(slots, buffer.numpy(), strict=True)
        return [found[tensor] for tensor in range(len(self.tensors))]

    @contextmanager
    def _filled(self, length: int) -> Iterator[list[Array]]:
        held = min(self.capacity, self.recurrent.most_slots)
        places = np.arange(held)[self.recurrent.slots_behind(length, held)]
        arrays = [
            np.empty((tensor.heads, len(places) if tensor.recurrent else length, tensor.size), self._dtype)
            for tensor in self.tensors
        ]
        yield arrays
        if not length:
            return
        for i, slots in enumerate(self._slots):
            whole = np.stack([arrays[tensor] for tensor in slots])[:, None]
            room = self.slots(self.tensors[slots[0]])
            if self.tensors[slots[0]].recurrent:
                parts, whole = whole, np.zeros((*whole.shape[:3], room, whole.shape[4]), self._dtype)
                whole[:, :, :, places] = parts
            self._binding.input("cache", whole)
            self._buffers[i] = self._moved([0], used=whole.shape[3], capacity=room)
        self.version += 1

    def _move(self, parents: Sequence[int], capacity: int) -> None:
        used = max([1, *(self.lengths[parent] for parent in parents)])
        for i, buffer in enumerate(self._buffers):
            room = self.slots(self.tensors[self._slots[i][0]], capacity)
            self._binding.device_input("cache", buffer)
            self._buffers[i] = self._moved(parents, min(used, buffer.shape[3], room), room)

    def _moved(self, parents: Sequence[int], used: int, capacity: int) -> DeviceArray:
        """The bound "cache" anew: its rows `parents` up to `used` tokens, then zeros up to `capacity`."""
        self._binding.input("parents", np.array(parents, np.int64))
        self._binding.input("used", np.array([used], np.int64))
        self._binding.input("spare", np.array([capacity - used], np.int64))
        self._binding.new_output("moved", self.device)
        self._binding.run()
        return self._binding.fetch_device("moved")
