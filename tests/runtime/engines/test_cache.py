"""Every implementation of the cache runs through the same tests, against plain lists of tokens."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.engines.in_place import device_cache, host_cache
from edgellm.engines.in_place.cache import CHUNK, KVCache
from edgellm.engines.in_place.device_cache import DeviceCache
from edgellm.engines.in_place.host_cache import ALIGNMENT, SCRATCH, HostCache, copy_plan
from edgellm.errors import ProviderError
from edgellm.ort.binding import DeviceArray
from edgellm.package.layouts import CONV_SLOTS, CONV_STEP
from edgellm.package.manifest import CacheLayout, ConvLayout
from edgellm.system.memory import resident_bytes

LAYOUT = CacheLayout(num_layers=2, num_kv_heads=2, head_dim=4, dtype="float32")
WIDE = replace(LAYOUT, head_dim=64)
HALF = replace(LAYOUT, dtype="float16")
BYTES = replace(LAYOUT, dtype="int8")
CONVOLVED = replace(LAYOUT, num_layers=3, conv=ConvLayout((0, 2), width=6, kernel=3, dtype="float32"))
CONVOLVED_BYTES = replace(CONVOLVED, dtype="int8")
ONCE = replace(LAYOUT, values_are_keys=True)
MAX_LENGTH = 300

KINDS = {
    "host": lambda: HostCache(LAYOUT, MAX_LENGTH),
    "host-float16": lambda: HostCache(HALF, MAX_LENGTH),
    "host-int8": lambda: HostCache(BYTES, MAX_LENGTH),
    "host-convolved": lambda: HostCache(CONVOLVED, MAX_LENGTH),
    "host-convolved-int8": lambda: HostCache(CONVOLVED_BYTES, MAX_LENGTH),
    "device-convolved": lambda: DeviceCache(CONVOLVED, MAX_LENGTH, "cpu"),
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
        """As a graph does: behind the used part of the row, in place, and at most a chunk at a time."""
        if count > CHUNK:
            self.write(row, CHUNK)
            self.write(row, count - CHUNK)
            return
        if not count:
            return
        self.cache.reserve(len(self.rows[row]) + count)
        marks = [mark % 100 for mark in range(self.next_mark, self.next_mark + count)]  # int8 goes up to 127
        self.next_mark += count
        for slot, buffer in enumerate(buffers(self.cache)):
            start = len(self.rows[row])
            places = np.arange(start, start + count) % buffer.shape[2]
            buffer[row][:, places] = np.array([[[mark + slot] for mark in marks]])
        self.cache.advance(count, None if row is None else range(row, row + 1))
        self.rows[row] += marks

    def reorder(self, parents: list[int]) -> None:
        self.cache.reorder(parents)
        self.rows = [list(self.rows[parent]) for parent in parents]

    def check(self) -> None:
        assert self.cache.lengths == [len(row) for row in self.rows]
        for slot, buffer in enumerate(buffers(self.cache)):
            assert buffer.shape == self.cache.views(range(self.cache.rows))[slot].shape
            convolved = bool(self.cache.tensors[slot].kernel)
            for row, marks in enumerate(self.rows):
                first = self.cache.recurrent.rows[row].first if convolved else 0
                assert first <= max(0, len(marks) - 2)  # what a kernel of 3 reads next
                places = np.arange(first, len(marks)) % buffer.shape[2]
                expected = np.broadcast_to(np.array(marks)[first:, None] + slot, (len(places), buffer.shape[-1]))
                for head in buffer[row]:
                    np.testing.assert_array_equal(head[places], expected)


def buffers(cache: KVCache) -> list[np.ndarray]:
    """Each [rows, heads, capacity, head_dim], aliasing the cache where it is in host memory."""
    if isinstance(cache, HostCache):
        return [buffer[: cache.rows] for buffer in cache._buffers]
    assert isinstance(cache, DeviceCache)
    return [buffer[: cache.rows] for buffer in cache._host_buffers()]


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
    kind=st.sampled_from(["host", "device", "host-convolved", "device-convolved"]),
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


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, MAX_LENGTH - 6), min_size=1, max_size=5),  # each move is followed by a token
    moves=st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), max_size=6),
)
def test_pages_of_rows_that_left_go_and_those_of_others_stay(lengths: list[int], moves: list[list[int]]) -> None:
    with mock.patch.object(host_cache, "STALE_BYTES", 0):
        cache = HostCache(WIDE, MAX_LENGTH)
        shadow = Shadow(cache, len(lengths), max(lengths))
        for row, length in enumerate(lengths):
            shadow.write(row, length)
        for move in moves:
            shadow.reorder([parent % len(shadow.rows) for parent in move])
            shadow.check()
            assert sum(cache._touched) <= 2 * sum(cache.lengths)
            shadow.write(0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux")
def test_memory_of_rows_that_left_is_given_back_while_others_run() -> None:
    layout = CacheLayout(num_layers=4, num_kv_heads=2, head_dim=64, dtype="float32")
    cache = HostCache(layout, 8192)
    cache.reset(8, 8192)
    before = resident_bytes()
    for buffer in cache._buffers:
        buffer[:] = 1
    cache.advance(8000)
    most = resident_bytes()
    cache.reorder([3])
    after = resident_bytes()
    assert before is not None
    assert most is not None
    assert after is not None
    row = 8192 * layout.bytes_per_token()
    assert most - before > 7 * row
    assert after - before < 2 * row
    assert all((buffer[0, :, :8000] == 1).all() for buffer in cache._buffers)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["host-convolved", "host-convolved-int8", "device-convolved"]),
    steps=st.lists(
        st.tuples(st.sampled_from(["write", "trim", "reorder", "insert"]), st.integers(0, 10**6)), max_size=12
    ),
)
def test_what_convolutions_read_is_there_or_the_row_is_shorter(kind: str, steps: list[tuple[str, int]]) -> None:
    """Whatever happens to rows longer than a convolution's slots."""
    shadow = Shadow(KINDS[kind](), 2, 10)
    cache = shadow.cache
    for what, number in steps:
        row = number % len(shadow.rows)
        if what == "write":
            shadow.write(row, min(number % 150, MAX_LENGTH - len(shadow.rows[row])))
        elif what == "insert":
            cache.insert(10)
            shadow.rows.append([])
        elif what == "trim":
            wanted = number // 7 % (len(shadow.rows[row]) + 1)
            kept = cache.restorable(wanted, row)
            assert kept <= wanted
            if cache.remembers and cache.recurrent.rows[row].first <= 192 and wanted >= 192:
                assert wanted - kept < CONV_STEP
            cache.trim(wanted, row)
            shadow.rows[row] = shadow.rows[row][:kept]
        else:
            shadow.reorder([parent % len(shadow.rows) for parent in (row, number // 3, number // 11)])
        shadow.check()


def test_a_row_goes_back_to_where_its_convolutions_are_remembered() -> None:
    shadow = Shadow(HostCache(CONVOLVED, MAX_LENGTH), 1, 10)
    cache = shadow.cache
    shadow.write(0, 30)
    cache.remember(0)
    shadow.write(0, 265)
    assert cache.recurrent.rows[0].first == 295 - CONV_SLOTS
    found = {length: cache.restorable(length) for length in (294, 105, 104, 64, 63, 30, 29)}
    assert found == {294: 294, 105: 105, 104: 64, 64: 64, 63: 30, 30: 30, 29: 0}
    cache.trim(100)
    shadow.rows[0] = shadow.rows[0][:64]
    shadow.check()
    shadow.write(0, 200)
    shadow.check()
    cache.trim(29)
    assert cache.lengths == [0]


def test_a_row_begins_with_blocks_of_another() -> None:
    """What a row gives of each block, another one takes over, however long ago it was read."""
    shadow = Shadow(HostCache(CONVOLVED_BYTES, MAX_LENGTH), 1, 10)
    shadow.write(0, 290)
    blocks = [shadow.cache.taken(0, start, start + 64) for start in range(0, 256, 64)]
    other = Shadow(HostCache(CONVOLVED_BYTES, MAX_LENGTH), 2, 10)
    other.write(0, 5)
    other.cache.reserve(256)
    for block in blocks:
        other.cache.give(1, block)
    other.rows[1] = shadow.rows[0][:256]
    other.check()
    assert [other.cache.restorable(length, 1) for length in (255, 200, 64)] == [192, 192, 64]
    other.write(1, 20)
    other.check()


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
        lengths = [min(6, each.kernel - 1) if each.kernel else 6 for each in cache.tensors]
        assert [array.shape for array in arrays] == [
            (each.heads, length, each.size) for each, length in zip(cache.tensors, lengths, strict=True)
        ]
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


@pytest.mark.parametrize(
    ("much", "rooms"), [(1 << 30, [1, 8, 32]), (20 * LAYOUT.row_bytes(128), [1, 8, 16]), (1, [1, 2, 4])]
)
def test_room_for_rows_grows_by_more_where_it_is_little(
    much: int, rooms: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_cache, "MUCH_BYTES", much)
    cache, found = HostCache(LAYOUT, MAX_LENGTH), []
    while len(found) < len(rooms):
        cache.insert(128)
        if cache.nbytes // cache.layout.row_bytes(128) not in found:
            found.append(cache.nbytes // cache.layout.row_bytes(128))
    assert found == rooms


def test_a_limit_gives_memory_back(cache: KVCache) -> None:
    shadow = Shadow(cache, 2, 200)
    for row, count in enumerate((40, 150)):
        shadow.write(row, count)
    before = cache.nbytes
    cache.limit(100)
    shadow.rows[1] = shadow.rows[1][:100]
    shadow.check()
    assert (cache.capacity, cache.max_length) == (100, 100)
    if cache.layout.conv is None:
        assert cache.nbytes * 256 == before * 100
    assert cache.nbytes < before / 2
    shadow.write(0, 60)
    shadow.reorder([0])
    shadow.check()
    cache.compact()
    assert cache.nbytes == expected_nbytes(cache, 1, 100)
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
    assert cache.nbytes == expected_nbytes(cache, 2, 128)
    cache.reset(2, MAX_LENGTH)
    assert cache.nbytes == expected_nbytes(cache, 2, MAX_LENGTH)


def expected_nbytes(cache: KVCache, rows: int, tokens: int) -> int:
    """Of buffers for so many tokens, and of what is remembered."""
    layout, remembered = cache.layout, 0
    if layout.conv is None:
        return rows * layout.row_bytes(tokens)
    behind = 2 * layout.conv.bytes_per_slot
    remembered = sum(len(state.remembered) for state in cache.recurrent.rows) * behind
    keys = replace(layout, conv=None, num_layers=layout.num_attention_layers)
    return rows * (keys.row_bytes(tokens) + min(tokens, CONV_SLOTS) * layout.conv.bytes_per_slot) + remembered


def test_reset_gives_back_what_a_long_call_took(cache: KVCache) -> None:
    cache.reset(4, MAX_LENGTH)
    before = cache.nbytes
    cache.reset(1, 10)
    assert cache.nbytes < before / 8
    assert cache.lengths == [0]


def test_views_alias_the_buffers(cache: KVCache) -> None:
    cache.reset(3, 50)
    for tensor, everything, last in zip(cache.tensors, cache.views(range(3)), cache.views(range(2, 3)), strict=True):
        assert everything.shape == (3, tensor.heads, 64, tensor.size)
        assert last.shape == (1, tensor.heads, 64, tensor.size)
        row_bytes = tensor.heads * 64 * tensor.size * np.dtype(tensor.dtype).itemsize
        assert last.address - everything.address == 2 * row_bytes
    if cache.device == "cpu":
        assert [view.address for view in cache.views(range(3))] == [each.ctypes.data for each in buffers(cache)]


def test_host_buffers_are_aligned() -> None:
    cache = HostCache(LAYOUT, MAX_LENGTH)
    cache.reset(3, 100)
    assert all(view.address % ALIGNMENT == 0 for view in cache.views(range(cache.rows)))


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
