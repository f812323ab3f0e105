"""Every implementation of the cache runs through the same tests, against plain lists of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.engines.in_place import device_cache
from edgellm.engines.in_place.cache import KVCache
from edgellm.engines.in_place.device_cache import DeviceCache
from edgellm.engines.in_place.host_cache import ALIGNMENT, SCRATCH, HostCache, copy_plan
from edgellm.errors import ProviderError
from edgellm.ort.binding import DeviceArray
from edgellm.package.manifest import CacheLayout

LAYOUT = CacheLayout(num_layers=2, num_kv_heads=2, head_dim=4, dtype="float32")
HALF = replace(LAYOUT, dtype="float16")
BYTES = replace(LAYOUT, dtype="int8")
ONCE = replace(LAYOUT, values_are_keys=True)
MAX_LENGTH = 300

KINDS = {
    "host": lambda: HostCache(LAYOUT, MAX_LENGTH),
    "host-float16": lambda: HostCache(HALF, MAX_LENGTH),
    "host-int8": lambda: HostCache(BYTES, MAX_LENGTH),
    "host-once": lambda: HostCache(ONCE, MAX_LENGTH),
    "device-once": lambda: DeviceCache(ONCE, MAX_LENGTH, "cpu"),
    "device": lambda: DeviceCache(LAYOUT, MAX_LENGTH, "cpu"),
    "device-float16": lambda: DeviceCache(HALF, MAX_LENGTH, "cpu"),
    "cuda": lambda: DeviceCache(HALF, MAX_LENGTH, "cuda"),
}


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.cuda if kind == "cuda" else ()) for kind in KINDS])
def cache(request: pytest.FixtureRequest) -> KVCache:
    return KINDS[request.param]()


class Shadow:
    """What the cache should hold: per row a list of marks, one per token."""

    def __init__(self, cache: KVCache, rows: int, capacity: int) -> None:
        self.cache = cache
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self.next_mark = 1
        cache.reset(rows, capacity)

    def write(self, row: int, count: int) -> None:
        """As a graph does: behind the used part of the row, in place."""
        self.cache.reserve(len(self.rows[row]) + count)
        marks = [mark % 100 for mark in range(self.next_mark, self.next_mark + count)]  # int8 goes up to 127
        self.next_mark += count
        for slot, buffer in enumerate(buffers(self.cache)):
            start = len(self.rows[row])
            buffer[row, :, start : start + count] = np.array([[[mark + slot] for mark in marks]])
        self.cache.advance(count, None if row is None else range(row, row + 1))
        self.rows[row] += marks

    def reorder(self, parents: list[int]) -> None:
        self.cache.reorder(parents)
        self.rows = [list(self.rows[parent]) for parent in parents]

    def check(self) -> None:
        assert self.cache.lengths == [len(row) for row in self.rows]
        for slot, buffer in enumerate(buffers(self.cache)):
            assert buffer.shape == self.cache.view(range(self.cache.rows)).shape
            for row, marks in enumerate(self.rows):
                expected = np.broadcast_to(np.array(marks)[:, None] + slot, (len(marks), 4))
                for head in buffer[row]:
                    np.testing.assert_array_equal(head[: len(marks)], expected)


def buffers(cache: KVCache) -> list[np.ndarray]:
    """Each [rows, heads, capacity, head_dim], aliasing the cache where it is in host memory."""
    if isinstance(cache, HostCache):
        return [buffer[: cache.rows] for buffer in cache._buffers]
    assert isinstance(cache, DeviceCache)
    return [slot[: cache.rows] for buffer in cache._buffers for slot in buffer.numpy()]


def host_only(cache: KVCache) -> None:
    if cache.device == "cuda":
        pytest.skip("writes through host memory")


def test_rows_keep_their_tokens_through_growth_and_reordering(cache: KVCache) -> None:
    host_only(cache)
    shadow = Shadow(cache, rows=3, capacity=10)
    for row, count in enumerate((5, 2, 9)):
        shadow.write(row, count)
    shadow.check()
    shadow.reorder([2, 2, 0])
    shadow.write(1, 80)
    shadow.check()
    shadow.reorder([0, 1, 2, 1, 0])
    shadow.check()
    shadow.write(4, 100)
    shadow.reorder([4, 3])
    shadow.check()


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["host", "device"]),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    moves=st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), max_size=4),
)
def test_any_reordering(kind: str, lengths: list[int], moves: list[list[int]]) -> None:
    shadow = Shadow(KINDS[kind](), len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        shadow.write(row, length)
    for move in moves:
        shadow.reorder([parent % len(shadow.rows) for parent in move])
        shadow.write(0, 1)
        shadow.check()


def test_trim_forgets_the_end_of_a_row(cache: KVCache) -> None:
    host_only(cache)
    shadow = Shadow(cache, rows=2, capacity=20)
    shadow.write(0, 12)
    shadow.write(1, 15)
    cache.trim(10, row=1)
    shadow.rows[1] = shadow.rows[1][:10]
    shadow.check()
    shadow.write(1, 3)
    shadow.check()
    cache.trim(11)
    assert cache.lengths == [11, 11]


@pytest.mark.parametrize("split", [False, True])
def test_what_one_cache_held_another_takes_over(cache: KVCache, split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it goes on like any other, and the first one keeps its own."""
    if split:
        monkeypatch.setattr(device_cache, "MAX_ELEMENTS", 2 * 192 * 4 + 1)  # so that each layer and side is by itself
    shadow = Shadow(cache, 3, 10)
    for row in range(3):
        shadow.write(row, 5 + row)
    other = type(cache)(cache.layout, MAX_LENGTH, *([cache.device] if isinstance(cache, DeviceCache) else []))
    other.reset(2, 20)
    with other.place(6, 100) as arrays:
        assert [array.shape for array in arrays] == [(2, 6, 4)] * cache.layout.num_buffers
        for to, of in zip(arrays, cache.used(1), strict=True):
            to[...] = of
    assert (other.lengths, other.capacity) == ([6], 128)
    copied = Shadow.__new__(Shadow)
    copied.cache, copied.rows, copied.next_mark = other, [list(shadow.rows[1])], 50
    copied.check()
    copied.write(0, 150)
    copied.reorder([0, 0])
    copied.write(1, 20)
    copied.check()
    shadow.check()
    with other.place(0, 10):
        pass
    assert other.lengths == [0]


def test_a_limit_gives_memory_back(cache: KVCache) -> None:
    shadow = Shadow(cache, 2, 200)
    for row, count in enumerate((40, 150)):
        shadow.write(row, count)
    before = cache.nbytes
    cache.limit(100)
    shadow.rows[1] = shadow.rows[1][:100]
    shadow.check()
    assert (cache.capacity, cache.max_length) == (100, 100)
    assert cache.nbytes * 256 == before * 100
    shadow.write(0, 60)
    shadow.reorder([0])
    shadow.check()
    cache.compact()
    assert cache.nbytes == 100 * cache.layout.bytes_per_token()
    shadow.check()
    cache.limit(MAX_LENGTH)
    shadow.write(0, 60)
    shadow.check()


def test_capacity_doubles_up_to_the_context(cache: KVCache) -> None:
    cache.reset(1, 10)
    assert cache.capacity == 64
    seen = []
    for length in range(1, MAX_LENGTH + 1):
        version = cache.version
        cache.reserve(length)
        cache.advance(1)
        if cache.version != version:
            seen.append(cache.capacity)
    assert seen == [128, 256, MAX_LENGTH]


def test_nbytes_is_what_the_layout_says(cache: KVCache) -> None:
    cache.reset(2, 100)
    assert cache.nbytes == 2 * 128 * cache.layout.bytes_per_token()


def test_reset_gives_back_what_a_long_call_took(cache: KVCache) -> None:
    cache.reset(4, MAX_LENGTH)
    before = cache.nbytes
    cache.reset(1, 10)
    assert cache.nbytes < before / 8
    assert cache.lengths == [0]


def test_views_alias_the_buffers(cache: KVCache) -> None:
    cache.reset(3, 50)
    everything, last = cache.view(range(cache.rows)), cache.view(range(2, 3))
    row_bytes = 2 * 64 * 4 * cache.dtype.itemsize
    assert everything.shape == (3, 2, 64, 4)
    assert last.shape == (1, 2, 64, 4)
    assert [b - a for a, b in zip(everything.addresses, last.addresses, strict=True)] == [
        2 * row_bytes
    ] * cache.layout.num_buffers
    if cache.device == "cpu":
        assert everything.addresses == tuple(buffer.ctypes.data for buffer in buffers(cache))


def test_host_buffers_are_aligned() -> None:
    cache = HostCache(LAYOUT, MAX_LENGTH)
    cache.reset(3, 100)
    assert all(address % ALIGNMENT == 0 for address in cache.view(range(cache.rows)).addresses)


def test_device_buffers_start_as_zeros_and_split_when_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_cache, "MAX_ELEMENTS", 3 * 2 * 64 * 4)
    shadow = Shadow(DeviceCache(LAYOUT, MAX_LENGTH, "cpu"), rows=1, capacity=64)
    assert [buffer.shape[0] for buffer in shadow.cache._buffers] == [3, 1]
    assert not any(buffer.any() for buffer in buffers(shadow.cache))
    shadow.write(0, 60)
    shadow.reorder([0, 0])
    shadow.check()


@pytest.mark.cuda
def test_rows_on_the_gpu_move_like_rows_on_the_host() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 2, 64, 4)).astype(np.float16)
    cache = DeviceCache(HALF, MAX_LENGTH, "cuda")
    cache.reset(3, 64)
    ort_value = cache._binding._ort.OrtValue.ortvalue_from_numpy(values, "cuda", 0)
    cache._buffers = [DeviceArray(ort_value)]
    cache.advance(40)
    cache.reorder([2, 0, 0, 1])
    cache.reserve(100)
    moved = cache._buffers[0].numpy()
    np.testing.assert_array_equal(moved[:, :, :, :40], values[:, [2, 0, 0, 1], :, :40])
    assert not moved[:, :, :, 40:].any()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8))
def test_copy_plan_reads_before_it_overwrites(numbers: list[int]) -> None:
    parents = [n % len(numbers) for n in numbers]
    rows = {row: f"row {row}" for row in range(len(parents))}
    plan = copy_plan(parents)
    for target, source in plan:
        rows[target] = rows[source]
    assert [rows[row] for row in range(len(parents))] == [f"row {parent}" for parent in parents]
    assert sum(target != SCRATCH for target, _ in plan) == sum(row != parent for row, parent in enumerate(parents))


def test_copy_plan_needs_no_scratch_without_circles() -> None:
    assert copy_plan([0, 1, 2]) == []
    assert copy_plan([0, 0, 1]) == [(2, 1), (1, 0)]
    assert copy_plan([1, 0]) == [(SCRATCH, 0), (0, 1), (1, SCRATCH)]


def test_out_of_memory_is_a_provider_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = HostCache(LAYOUT, 10**15)
    cache.reset(1, 10)
    with pytest.raises(ProviderError, match="no memory for a cache of 1 rows of 1000000000000"):
        cache.reserve(10**12)


def test_the_graphs_are_those_that_the_script_builds() -> None:
    graphs = pytest.importorskip("edgellm_export.onnx.cache_graphs")
    for dtype in graphs.DTYPES:
        shipped = (Path(device_cache.__file__).parent.parent / "graphs" / f"move_rows_{dtype}.onnx").read_bytes()
        assert shipped == graphs.move_rows(dtype).SerializeToString(deterministic=True)
