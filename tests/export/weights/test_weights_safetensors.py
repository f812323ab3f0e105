from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from edgellm.errors import CheckpointError, TensorError
from edgellm_export.weights.safetensors import read_safetensors

FLOATS = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64}


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[Any], start: Any, stop: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_are_the_values_as_float32(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).standard_normal((7, 3, 2)).astype(FLOATS[dtype])
    save_file({"other": np.ones(5, np.int64), "w": array}, tmp_path / "w.safetensors")
    tensor = read_safetensors(tmp_path / "w.safetensors")["w"]
    assert (tensor.name, tensor.shape, tensor.dtype) == ("w", (7, 3, 2), dtype)
    for start, stop in ((0, 7), (2, 5), (6, 7), (3, 3)):
        rows = tensor.rows(start, stop)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, array[start:stop].astype(np.float32))


def test_bf16_keeps_infinities_and_nans(tmp_path: Path) -> None:
    array = np.array([np.inf, -np.inf, np.nan, -0.0, 3e38], ml_dtypes.bfloat16)
    save_file({"w": array}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(
        read_safetensors(tmp_path / "w.safetensors")["w"].rows(0, 5), array.astype(np.float32)
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool", "float8_e4m3fn"])
def test_other_types_are_listed_but_not_read(tmp_path: Path, dtype: str) -> None:
    save_file({"q": np.zeros((2, 2), np.dtype(dtype))}, tmp_path / "w.safetensors")
    tensor = read_safetensors(tmp_path / "w.safetensors")["q"]
    with pytest.raises(TensorError, match=r"q in w\.safetensors has type"):
        tensor.rows(0, 1)


def test_empty_tensors_and_metadata_are_fine(tmp_path: Path) -> None:
    save_file({"empty": np.zeros((0, 4), np.float32), "w": np.ones(2, np.float32)}, tmp_path / "w", {"format": "np"})
    tensors = read_safetensors(tmp_path / "w")
    assert set(tensors) == {"empty", "w"}
    assert tensors["empty"].rows(0, 0).shape == (0, 4)


MALFORMED = {
    "empty file": (b"", None, "header"),
    "header longer than the file": ({}, 1000, "should have 1000 bytes"),
    "huge header length": ({}, 2**63, "header"),
    "not JSON": (b"{]", None, "not JSON"),
    "not UTF-8": (b"\xff\xfe{}", None, "not JSON"),
    "deeply nested": (b"[" * 100_000, None, "not JSON"),
    "not an object": (b"[]", None, "not a JSON object"),
    "entry not an object": ({"w": 1}, None, "lacks dtype"),
    "no dtype": ({"w": {"shape": [1], "data_offsets": [0, 4]}}, None, "lacks dtype"),
    "unknown dtype": ({"w": entry([1], 0, 4, "F31")}, None, "unknown type 'F31'"),
    "dtype not text": ({"w": entry([1], 0, 4, 7)}, None, "unknown type 7"),
    "shape not a list": ({"w": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, None, "shape 1"),
    "negative size": ({"w": entry([-1], 0, 4)}, None, "shape"),
    "fractional size": ({"w": entry([1.5], 0, 4)}, None, "shape"),
    "boolean size": ({"w": entry([True], 0, 4)}, None, "shape"),
    "one offset": ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, None, "data_offsets"),
    "offsets reversed": ({"w": entry([1], 4, 0)}, None, "data_offsets"),
    "negative offset": ({"w": entry([1], -4, 0)}, None, "data_offsets"),
    "size and shape differ": ({"w": entry([3], 0, 8)}, None, r"has 8 bytes, F32 \[3\] needs 12"),
    "product overflows 64 bits": ({"w": entry([2**40, 2**40], 0, 8)}, None, "needs"),
    "sizes of thousands of digits": ({"w": entry([10**4000, 10**4000], 0, 8)}, None, "has shape"),
    "many axes": ({"w": entry([1] * 65, 0, 4)}, None, "has shape"),
    "offsets of thousands of digits": ({"w": entry([1], 0, 10**4000)}, None, "has data_offsets"),
    "beyond the end": ({"w": entry([3], 0, 12)}, None, "ends at byte"),
    "far beyond the end": ({"w": entry([2**59], 0, 2**61)}, None, "ends at byte"),
    "overlap": ({"a": entry([1], 0, 4), "b": entry([2], 0, 8)}, None, "overlap"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused(tmp_path: Path, case: str) -> None:
    header, length, message = MALFORMED[case]
    path = tmp_path / "model.safetensors"
    if case == "empty file":
        path.touch()
    else:
        write(path, header, b"\0" * 8, length=length)
    with pytest.raises(CheckpointError, match=message) as error:
        read_safetensors(path)
    assert "model.safetensors is damaged" in str(error.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float16)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_safetensors(tmp_path / "cut")


@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_changed_bytes_give_typed_errors_or_tensors(tmp_path_factory: Any, position: int, value: int) -> None:
    path = tmp_path_factory.mktemp("changed") / "w"
    save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float16)}, path)
    data = bytearray(path.read_bytes())
    data[min(position, len(data) - 1)] = value
    path.write_bytes(data)
    try:
        tensors = read_safetensors(path)
        for tensor in tensors.values():
            tensor.rows(0, tensor.shape[0] if tensor.shape else 1)
    except CheckpointError:
        pass


def test_a_file_that_shrinks_after_opening_is_reported(tmp_path: Path) -> None:
    save_file({"w": np.ones((4, 4), np.float32)}, tmp_path / "w")
    tensor = read_safetensors(tmp_path / "w")["w"]
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="became shorter while w was read"):
        tensor.rows(0, 4)


def test_reading_rows_costs_memory_for_those_rows_only(tmp_path: Path) -> None:
    rows, columns = 8192, 1024  # 16 MiB as bf16
    save_file({"w": np.ones((rows, columns), ml_dtypes.bfloat16)}, tmp_path / "w")
    tensor = read_safetensors(tmp_path / "w")["w"]
    tracemalloc.start()
    for start in range(0, rows, 64):
        tensor.rows(start, start + 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 64 * columns * 4
