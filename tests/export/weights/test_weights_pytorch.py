"""PyTorch's own files beside torch's own reading of them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.errors import CheckpointError, TensorError
from edgellm_export.weights.pytorch import read_pytorch
from weights.torch_files import state, tensor, zip_of

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FORMATS = {"zip": True, "old": False}


def save(path: Path, tensors: Any, new: bool = True) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=new)
    return path


def check(path: Path) -> None:
    """Each tensor is what torch reads, in one piece and row by row."""
    found, expected = read_pytorch(path), torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    for name, value in expected.items():
        tensor, array = found[name], value.detach().float().numpy()
        assert tensor.shape == array.shape
        if value.dtype not in FLOATS:
            with pytest.raises(TensorError, match=f"{name} in {path.name} has type"):
                tensor.rows(0, 1)
            if array.shape:
                np.testing.assert_array_equal(tensor.stored(0, array.shape[0]), value.numpy())
            continue
        rows = array.shape[0] if array.shape else 1
        whole = tensor.rows(0, rows)
        assert whole.dtype == np.float32
        np.testing.assert_array_equal(whole.reshape(array.shape), array)
        if array.shape and rows > 1:
            np.testing.assert_array_equal(tensor.rows(1, rows), array[1:])
            assert tensor.rows(1, 1).shape == (0, *array.shape[1:])


@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
def test_all_that_a_checkpoint_may_hold(new: bool, tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    tensors = OrderedDict(
        {f"of {dtype}": (weight * 10).to(dtype) for dtype in (*FLOATS, *WHOLE)},
        flags=weight > 0,
        parameter=torch.nn.Parameter(weight),
        tied=weight,
        transposed=weight.T,
        part=weight[2:, 1:3],
        column=weight[:, 1],
        scalar=torch.tensor(3.0),
        nothing=torch.zeros(0, 3),
        cube=torch.randn(2, 3, 4).permute(2, 0, 1),
        positions=torch.arange(4).expand((1, -1)),
        special=torch.tensor([float("inf"), float("-inf"), float("nan"), -0.0]),
    )
    tensors._metadata = {"": {"version": 1}}
    check(save(tmp_path / "w.bin", tensors, new))


@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
def test_a_plain_dictionary_and_an_empty_one(new: bool, tmp_path: Path) -> None:
    check(save(tmp_path / "w.bin", {"w": torch.ones(2)}, new))
    check(save(tmp_path / "w.bin", {}, new))


def test_a_parameter_with_attributes(tmp_path: Path) -> None:
    parameter, plain = torch.nn.Parameter(torch.randn(3, 2)), torch.randn(2, 2)
    parameter.of = plain.of = "the encoder"
    check(save(tmp_path / "w.bin", {"w": parameter, "v": plain}))


def test_types_that_only_new_files_have(tmp_path: Path) -> None:
    path = save(
        tmp_path / "w.bin", {"e4m3": torch.ones(2, 3).to(torch.float8_e4m3fn), "u16": torch.ones(4).to(torch.uint16)}
    )
    found = read_pytorch(path)
    assert {name: (t.dtype, t.shape) for name, t in found.items()} == {
        "e4m3": ("F8_E4M3", (2, 3)),
        "u16": ("U16", (4,)),
    }
    with pytest.raises(TensorError, match=r"e4m3 in w\.bin has type F8_E4M3.*no quantization_config"):
        found["e4m3"].rows(0, 1)
    assert found["u16"].stored(0, 4).tolist() == [1, 1, 1, 1]


def test_expanded_views_are_refused_where_they_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "w.bin", {"w": torch.ones(1, 3).expand(1000, 3)})
    with pytest.raises(TensorError, match="an expanded view"):
        read_pytorch(path)["w"].rows(0, 1)


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Any view of a random tensor: axes in any order, cut, with steps."""
    shape = draw(st.lists(st.integers(0, 5), min_size=0, max_size=4))
    dtype = draw(st.sampled_from((*FLOATS, torch.int64)))
    found = (torch.randn(shape) * 10).to(dtype)
    found = found.permute(draw(st.permutations(range(len(shape)))))
    for axis, size in enumerate(found.shape):
        start, step = draw(st.integers(0, size)), draw(st.integers(1, 3))
        found = found[(slice(None),) * axis + (slice(start, None, step),)]
    return found


@settings(max_examples=150, deadline=None)
@given(tensors=st.lists(views(), max_size=4), new=st.booleans())
def test_any_views_of_any_type(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[torch.Tensor], new: bool
) -> None:
    path = tmp_path_factory.mktemp("views") / "w.bin"
    check(save(path, {f"t{i}": tensor for i, tensor in enumerate(tensors)}, new))


@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
def test_every_truncation_is_refused(new: bool, tmp_path: Path) -> None:
    whole = save(tmp_path / "whole", {"a": torch.ones(4, 4), "b": torch.ones(3).half()}, new).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_pytorch(tmp_path / "cut")


@settings(deadline=None)
@given(position=st.integers(0, 2000), value=st.integers(0, 255), new=st.booleans())
def test_changed_bytes_give_typed_errors_or_tensors(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, new: bool
) -> None:
    path = save(tmp_path_factory.mktemp("changed") / "w", {"a": torch.ones(4, 4), "b": torch.ones(3).half()}, new)
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        for found in read_pytorch(path).values():
            found.rows(0, found.shape[0] if found.shape else 1)
    except CheckpointError:
        pass


def test_a_file_that_shrinks_after_opening_is_reported(tmp_path: Path) -> None:
    path = save(tmp_path / "w", {"w": torch.ones(4, 4)}, new=False)
    found = read_pytorch(path)["w"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="became shorter while w was read"):
        found.rows(0, 4)


def test_reading_rows_costs_memory_for_those_rows_only(tmp_path: Path) -> None:
    rows, columns = 8192, 1024  # 16 MiB as bf16
    path = save(tmp_path / "w", {"w": torch.ones(rows, columns, dtype=torch.bfloat16)})
    tracemalloc.start()
    found = read_pytorch(path)["w"]
    for start in range(0, rows, 64):
        found.rows(start, start + 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 64 * columns * 4


DATA = bytes(16)


def far_away() -> bytes:
    """Its last entry's place, in the directory, is 2^64 - 1, which takes a field of 64 bits."""
    content = bytearray(changed(header=0xFFFFFFFF))
    at, field = content.rindex(b"PK\x01\x02"), struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    name = struct.unpack_from("<H", content, at + 28)[0]
    struct.pack_into("<H", content, at + 30, len(field))
    content[at + 46 + name : at + 46 + name] = field
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 12, struct.unpack_from("<I", content, end + 12)[0] + len(field))
    return bytes(content)


def changed(**changes: Any) -> bytes:
    """A torch file with its last entry's place in the directory changed."""
    content = bytearray(zip_of(state(tensor()), {"0": DATA}))
    at = content.rindex(b"PK\x01\x02")
    for name, value in changes.items():
        form, offset = {"flags": ("<H", 8), "method": ("<H", 10), "header": ("<I", 42)}[name]
        struct.pack_into(form, content, at + offset, value)
    return bytes(content)


def deflated() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", state(tensor()))
        archive.writestr("archive/data/0", DATA)
    return made.getvalue()


def doubled() -> bytes:
    made = io.BytesIO(zip_of(state(tensor()), {"0": DATA}))
    with zipfile.ZipFile(made, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("archive/data/0", DATA)
    return made.getvalue()


ARCHIVES = {
    "compressed": (deflated, "is compressed or encrypted"),
    "compressed numbers": (lambda: changed(method=8), "is compressed or encrypted"),
    "encrypted numbers": (lambda: changed(flags=1), "is compressed or encrypted"),
    "two entries of a name": (doubled, "two entries of one name"),
    "numbers at another entry's place": (lambda: changed(header=4), "has no header"),
    "numbers behind the end": (lambda: changed(header=1 << 31), "has no header"),
    "numbers far behind the end": (far_away, "'archive/data/0' has no header"),
    "no numbers": (lambda: zip_of(state(tensor())), "the storage '0' is not there"),
    "too few numbers": (lambda: zip_of(state(tensor()), {"0": DATA[:-1]}), "has 15 bytes, its tensor needs more"),
    "high bytes first": (lambda: zip_of(state(tensor()), {"0": DATA}, byteorder=b"big"), "high bytes first"),
    "a program": (lambda: zip_of(state(tensor()), {"0": DATA}, **{"constants.pkl": b"."}), "a TorchScript program"),
    "no pickle": (lambda: zip_of(b"").replace(b"data.pkl", b"data.txt"), r"has no data\.pkl"),
    "no zip": (lambda: b"PK\x03\x04" + bytes(100), "the zip archive cannot be read"),
    "a git-lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer.*git lfs pull"),
    "a tar archive": (lambda: b"pickle" + bytes(506), "damaged or not a PyTorch file"),
    "nothing": (lambda: b"", "ends early"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_other_archives_say_what_they_are(case: str, tmp_path: Path) -> None:
    make, message = ARCHIVES[case]
    (tmp_path / "pytorch_model.bin").write_bytes(make())
    with pytest.raises(CheckpointError, match=message):
        read_pytorch(tmp_path / "pytorch_model.bin")


def test_an_archive_for_large_files(tmp_path: Path) -> None:
    """Its sizes and places are written in 64 bits."""
    with zipfile.ZipFile(tmp_path / "w", "w") as archive:
        for name, content in (
            ("data.pkl", state(tensor())),
            ("version", b"3\n"),
            ("data/0", np.arange(4, dtype="<f4").tobytes()),
        ):
            with archive.open(f"a name/{name}", "w", force_zip64=True) as entry:
                entry.write(content)
    assert read_pytorch(tmp_path / "w")["w"].rows(0, 2).tolist() == [[0, 1], [2, 3]]


def test_a_pickle_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgellm_export.weights.pytorch.MAX_PICKLE", 100)
    (tmp_path / "w").write_bytes(zip_of(state(tensor()), {"0": DATA}))
    with pytest.raises(CheckpointError, match=r"data\.pkl has \d+ bytes, more than 100"):
        read_pytorch(tmp_path / "w")
