"""The limit that reading memory sets: caches, buffers, what a step reads of a graph; and cold files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import edgellm.system.bandwidth as bandwidth
from edgellm.bench.pagecache import drop_pages
from edgellm.errors import PackageCorruptError
from edgellm.inspection.graph_weights import graph_weights
from edgellm.system.cpu import last_level_cache_bytes
from edgellm.system.memory import available_memory_bytes, peak_memory_bytes, resident_bytes
from fake_machine import UNREADABLE, put

MIB = 2**20


def test_the_last_level_cache_of_all_sockets(tmp_path: Path) -> None:
    for cpu, socket in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        cache = f"sys/devices/system/cpu/cpu{cpu}/cache"
        put(tmp_path, {f"{cache}/index0/level": 1, f"{cache}/index0/size": "48K"})
        put(tmp_path, {f"{cache}/index3/level": 3, f"{cache}/index3/size": "32M"})
        put(tmp_path, {f"{cache}/index3/shared_cpu_list": socket})
    assert last_level_cache_bytes(tmp_path) == 64 * MIB


def test_a_cache_of_unknown_size(tmp_path: Path) -> None:
    cache = "sys/devices/system/cpu/cpu0/cache/index0"
    put(tmp_path, {f"{cache}/level": 3, f"{cache}/size": UNREADABLE})
    assert last_level_cache_bytes(tmp_path) is None
    assert available_memory_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("cache", "available", "expected"),
    [
        (MIB, None, 256 * MIB),
        (64 * MIB, 8192 * MIB, 512 * MIB),
        (None, 8192 * MIB, 512 * MIB),
        (MIB, 400 * MIB, 100 * MIB),
        (64 * MIB, 400 * MIB, None),
    ],
)
def test_the_buffer_is_larger_than_the_cache_and_fits(
    cache: int | None, available: int | None, expected: int | None
) -> None:
    assert bandwidth.buffer_bytes(cache, available) == expected


def test_bandwidth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SMALLEST", 8 * MIB)
    put(tmp_path, {"sys/devices/system/cpu/cpu0/cache/index0/level": 2})
    put(tmp_path, {"sys/devices/system/cpu/cpu0/cache/index0/size": "512K", "proc/meminfo": "MemAvailable: 1048576 kB"})
    found = bandwidth.read_bandwidth(2, tmp_path)
    assert isinstance(found, bandwidth.Bandwidth)
    assert (found.threads, found.buffer_bytes, found.cache_bytes) == (2, 8 * MIB, 512 * 1024)
    assert found.bytes_per_s > 1e6
    put(tmp_path, {"proc/meminfo": "MemAvailable: 1024 kB"})
    assert bandwidth.read_bandwidth(2, tmp_path) == "too little free memory for a buffer that the caches cannot hold"


def test_a_step_reads_all_weights_but_what_is_looked_up(package: Path) -> None:
    path = package / "model.onnx"
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    sizes = {t.name: int(np.prod(t.dims)) for t in tensors if t.data_type == TensorProto.FLOAT}
    sizes |= {t.name: 2 * int(np.prod(t.dims)) for t in tensors if t.data_type == TensorProto.INT64}
    looked_up = {name for name in sizes if name == "embed" or name.startswith(("cos.", "sin."))}
    found = graph_weights(path)
    assert {"embed", "cos.short", "head"} < set(sizes)
    assert found.bytes_per_step == 4 * sum(size for name, size in sizes.items() if name not in looked_up)
    floats = {t.name for t in tensors if t.data_type == TensorProto.FLOAT and not t.name.startswith(("cos.", "sin."))}
    assert found.parameters == sum(sizes[name] for name in floats)


def test_packed_shared_and_widened_weights(tmp_path: Path) -> None:
    """An int4 matrix, an embedding that the head shares as other bytes of one file, and float16 that is widened."""
    nodes = [
        helper.make_node("GatherBlockQuantized", ["table", "ids", "scales"], ["x"], domain="com.microsoft", bits=8),
        helper.make_node(
            "MatMulNBits", ["x", "head", "scales"], ["y"], domain="com.microsoft", N=10, K=40, bits=8, block_size=32
        ),
        helper.make_node(
            "MatMulNBits", ["x", "int4", "int4.scales", "int4.zeros"], ["z"], domain="com.microsoft", N=6, K=40, bits=4
        ),
        helper.make_node("MatMulNBits", ["y", "again", "scales"], ["v"], domain="com.microsoft", N=10, K=40, bits=8),
        helper.make_node("Cast", ["half"], ["float"], to=1),
        helper.make_node("Gather", ["lonely", "ids"], ["w"]),
    ]
    tensors = [
        _external("table", TensorProto.UINT8, (10, 64), 0),
        _external("head", TensorProto.UINT8, (10, 2, 32), 0),
        _external("again", TensorProto.UINT8, (10, 2, 32), 0),
        _external("scales", TensorProto.FLOAT, (10, 2), 4096),
        _external("int4", TensorProto.UINT8, (6, 2, 16), 8192),
        _external("int4.scales", TensorProto.FLOAT, (6, 2), 12288),
        _external("int4.zeros", TensorProto.UINT8, (6, 1), 16384),
        _external("half", TensorProto.FLOAT16, (8, 8), 20480),
        _external("lonely", TensorProto.FLOAT, (100, 8), 24576),
    ]
    graph = helper.make_graph(nodes, "tiny", [], [], tensors)
    (tmp_path / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    found = graph_weights(tmp_path / "model.onnx")
    assert found.bytes_per_step == 10 * 64 + 4 * 10 * 2 + 6 * 32 + 4 * 6 * 2 + 6 + 4 * 8 * 8
    assert found.parameters == 10 * 64 + 6 * 40 + 8 * 8 + 100 * 8


def _external(name: str, data_type: int, dims: tuple[int, ...], offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "model.onnx.data"), ("offset", str(offset))):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x3a\x7f", b"\x3b\x00"])
def test_a_graph_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(PackageCorruptError, match="is not an ONNX model"):
        graph_weights(tmp_path / "model.onnx")


def test_dropped_pages_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * MIB)
    reason = drop_pages([file])
    assert reason is None or "stayed in memory" in reason  # tests may run on a file system in memory
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: None)
    file.read_bytes()
    reason = drop_pages([file])
    assert reason is not None
    assert reason.startswith("100% of the pages stayed in memory")


def test_pages_where_they_cannot_be_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = drop_pages([tmp_path / "missing"])
    assert reason is not None
    assert reason.startswith("the system refused: No such file")
    monkeypatch.delattr(os, "posix_fadvise")
    assert drop_pages([tmp_path]) == "this system has no posix_fadvise"


def test_memory_of_this_process() -> None:
    peak, now = peak_memory_bytes(), resident_bytes()
    assert peak is not None
    assert now is not None
    assert peak >= now > 10 * MIB
