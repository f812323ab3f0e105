"""A cache on the device that runs the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources

import numpy as np

from edgellm.engines.in_place.cache import KVCache
from edgellm.ort.binding import DeviceArray
from edgellm.ort.library import Device
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import CacheLayout
from edgellm.types import Array

MAX_ELEMENTS = 2**31 - 1  # of one buffer: CUDA's Gather counts in 32 bits


class DeviceCache(KVCache):
    """Buffers that ONNX Runtime owns on a device. Rows move through a small graph, so nothing passes through the host.

    Several layers share a buffer of [slots, rows, num_kv_heads, capacity, head_dim]: one run moves them all.
    """

    def __init__(self, layout: CacheLayout, max_length: int, device: Device) -> None:
        super().__init__(layout, max_length)
        self.device = device
        self._buffers: list[DeviceArray] = []
        graph = resources.files("edgellm.engines") / "graphs" / f"move_rows_{layout.dtype}.onnx"
        self._binding = LoadedGraph(graph.read_bytes(), device, threads=1, spinning=False).bind()

    def _allocated_rows(self) -> int:
        return self._buffers[0].shape[1] if self._buffers else 0

    def _addresses(self) -> Sequence[int]:
        addresses: list[int] = []
        for buffer in self._buffers:
            slot_bytes = math.prod(buffer.shape[1:]) * self.dtype.itemsize
            addresses += range(buffer.address, buffer.address + buffer.shape[0] * slot_bytes, slot_bytes)
        return addresses

    def _free(self) -> None:
        self._buffers = []

    def _allocate(self, rows: int, capacity: int) -> None:
        """Zeros: kernels may multiply what lies beyond a row's end by zero, and a NaN there would stay NaN."""
        slot = rows * self.layout.num_kv_heads * capacity * self.layout.head_dim
        per_buffer = max(1, MAX_ELEMENTS // slot)
        for first in range(0, len(self.names), per_buffer):
            slots = min(per_buffer, len(self.names) - first)
            empty = np.zeros((slots, 1, self.layout.num_kv_heads, 1, self.layout.head_dim), self.dtype)
            self._binding.input("cache", empty)
            self._buffers.append(self._moved([0] * rows, used=1, capacity=capacity))

    def _grow(self, rows: int, capacity: int) -> None:
        self._move([*range(self.rows), *[0] * (rows - self.rows)], capacity)

    def _reorder(self, parents: Sequence[int]) -> None:
        self._move(parents, self.capacity)
        self.version += 1

    def _host_buffers(self) -> Sequence[Array]:
        return [slot for buffer in self._buffers for slot in buffer.numpy()]

    @contextmanager
    def _filled(self, length: int) -> Iterator[list[Array]]:
        arrays = [np.empty((self.layout.num_kv_heads, length, self.layout.head_dim), self.dtype) for _ in self.names]
        yield arrays
        if not length:
            return
        first = 0
        for i, buffer in enumerate(self._buffers):
            slots = buffer.shape[0]
            self._binding.input("cache", np.stack(arrays[first : first + slots])[:, None])
            self._buffers[i] = self._moved([0], used=length, capacity=self.capacity)
            first += slots
        self.version += 1

    def _move(self, parents: Sequence[int], capacity: int) -> None:
        used = max([1, *(self.lengths[parent] for parent in parents)])
        for i, buffer in enumerate(self._buffers):
            self._binding.device_input("cache", buffer)
            self._buffers[i] = self._moved(parents, used, capacity)

    def _moved(self, parents: Sequence[int], used: int, capacity: int) -> DeviceArray:
        """The bound "cache" anew: its rows `parents` up to `used` tokens, then zeros up to `capacity`."""
        self._binding.input("parents", np.array(parents, np.int64))
        self._binding.input("used", np.array([used], np.int64))
        self._binding.input("spare", np.array([capacity - used], np.int64))
        self._binding.new_output("moved", self.device)
        self._binding.run()
        return self._binding.fetch_device("moved")
