"""Memory that is given back to the operating system."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import StringStringEntryProto, TensorProto, helper, numpy_helper

from edgellm import memory
from edgellm.memory import release_mapped_files
from edgellm.session import Session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")
PAGES = 64
SIZE = PAGES * mmap.PAGESIZE


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[mmap.mmap]:
    """A file of the directory "package", mapped as ONNX Runtime maps weights: changes are private. All pages were
    read."""
    path = tmp_path / "package" / "weights of a model.data"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as file, mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE) as found:
        assert found[::512].count(0) == SIZE // 512
        yield found


def resident_bytes(path: Path) -> int:
    """Of the mappings of `path` in this process."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split(None, 1)[0].endswith(":"):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def matmul_nbits(stored: dict[str, tuple[np.ndarray, int]], data: str, rows: int, columns: int) -> bytes:
    """y = x @ B.T with four bits a weight; arrays by name with their place in the file `data`."""
    initializers = []
    for name, (array, offset) in stored.items():
        tensor = numpy_helper.from_array(array, name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": data, "offset": str(offset), "length": str(array.nbytes)}
        tensor.external_data.extend(StringStringEntryProto(key=key, value=value) for key, value in place.items())
        initializers.append(tensor)
    node = helper.make_node(
        "MatMulNBits", ["x", *stored], ["y"], domain="com.microsoft", K=columns, N=rows, bits=4, block_size=32,
        accuracy_level=4,
    )  # fmt: skip
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["tokens", None]) for name in "xy")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "product", [x], [y], initializers)
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_what_onnx_runtime_has_copied_is_not_resident(tmp_path: Path) -> None:
    """A matrix of four bits, which its kernel wants in another order."""
    rows, columns = 512, 256
    generator = np.random.default_rng(0)
    quants = generator.integers(0, 256, (rows, columns // 32, 16)).astype(np.uint8)
    scales = np.full((rows, columns // 32), 0.01, np.float32)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(quants.tobytes() + scales.tobytes())
    stored = {"B": (quants, 0), "scales": (scales, quants.nbytes)}
    (tmp_path / "model.onnx").write_bytes(matmul_nbits(stored, data.name, rows, columns))
    session = Session(tmp_path / "model.onnx")
    assert resident_bytes(data) == 0
    x = generator.standard_normal((1, columns)).astype(np.float32)
    low, high = quants & 15, quants >> 4
    weights = ((np.stack([low, high], -1).reshape(rows, columns).astype(np.float32) - 8) * 0.01).T
    (found,) = session.run({"x": x}, ["y"])
    np.testing.assert_allclose(found.numpy(), x @ weights, atol=0.05)


def test_pages_of_a_directory_are_released_and_come_back(mapped: mmap.mmap, tmp_path: Path) -> None:
    file = tmp_path / "package" / "weights of a model.data"
    assert resident_bytes(file) == SIZE
    release_mapped_files(tmp_path / "pack")
    assert resident_bytes(file) == SIZE
    release_mapped_files(tmp_path / "package")
    assert resident_bytes(file) == 0
    assert mapped[:] == file.read_bytes()


def test_changed_pages_stay(mapped: mmap.mmap, tmp_path: Path) -> None:
    mapped[7] = 99
    release_mapped_files(tmp_path / "package")
    assert mapped[7] == 99


def test_other_systems_do_without(mapped: mmap.mmap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMAPS", tmp_path / "nothing")
    release_mapped_files(tmp_path / "package")
    assert mapped[5] == 5
