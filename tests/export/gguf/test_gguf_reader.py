from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.reader import read_gguf
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import tiny_llama, write_gguf

U32, F32, STRING, ARRAY = 4, 6, 8, 9


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def header(tensors: int = 0, pairs: int = 0, *, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, pairs)


def info(name: str = "t", dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", U32, value)


PAD = b"\0" * 256
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ends within 'the magic'"),
    "another format": (b"PK\x03\x04" + PAD, "does not start with 'GGUF'"),
    "version 1": (header(version=1), "GGUF version 1, expected 2 or 3"),
    "version 99": (header(version=99), "GGUF version 99"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "huge tensor count": (header(2**63), "promises 9223372036854775808 tensors"),
    "huge pair count": (header(0, 2**60), "promises 0 tensors and 1152921504606846976"),
    "huge key": (header(0, 1) + struct.pack("<Q", 2**62) + PAD, "ends within 'a metadata key'"),
    "huge string": (header(0, 1) + text("k") + struct.pack("<IQ", STRING, 2**40) + PAD, "ends within 'k'"),
    "huge string array": (
        header(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, STRING, 2**50) + PAD,
        "promises 1125899906842624 strings",
    ),
    "huge number array": (header(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, F32, 2**61) + PAD, "ends within 'k'"),
    "string in array too long": (
        header(0, 1) + text("k") + struct.pack("<IIQQ", ARRAY, STRING, 2, 2**40) + PAD,
        "ends within the 0th of the 2 strings",
    ),
    "unknown value type": (header(0, 1) + text("k") + struct.pack("<I", 77) + PAD, "unknown value type 77"),
    "nested array": (header(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + PAD, "unknown value type 9"),
    "key not UTF-8": (header(0, 1) + text(b"\xff\xfe") + PAD, "is not UTF-8"),
    "string not UTF-8": (header(0, 1) + text("k") + struct.pack("<I", STRING) + text(b"\xff") + PAD, "is not UTF-8"),
    "repeated key": (header(0, 2) + number("k", 1) + number("k", 2) + PAD, "'k' occurs twice"),
    "alignment zero": (header(0, 1) + number("general.alignment", 0), "alignment is 0"),
    "alignment odd": (header(0, 1) + number("general.alignment", 24), "alignment is 24"),
    "no dimensions": (header(1) + info(dims=()) + PAD, "has 0 dimensions"),
    "five dimensions": (header(1) + info(dims=(1,) * 5) + PAD, "has 5 dimensions"),
    "empty tensor": (header(1) + info(dims=(0,)) + PAD, r"has shape \[0\]"),
    "unknown quantization": (header(1) + info(kind=999) + PAD, "t has the unknown quantization type 999"),
    "partial block": (header(1) + info(dims=(31,), kind=8) + PAD, "multiples of 32"),
    "product overflows 64 bits": (header(1) + info(dims=(2**40, 2**40)) + PAD, "ends at byte"),
    "beyond the end": (header(1) + info(dims=(100,)) + PAD, "ends at byte"),
    "offset beyond the end": (header(1) + info(offset=2**50) + PAD, "ends at byte"),
    "misaligned": (header(1) + info(offset=4) + PAD, "misaligned"),
    "overlap": (header(2) + info("a", (16,)) + info("b", (16,), offset=32) + PAD, "overlaps"),
    "long name": (header(1) + info("blk.1." * 43) + PAD, "a name of 258 characters, more than 256"),
    "repeated tensor": (header(2) + info("a") + info("a", offset=32) + PAD, "'a' occurs twice"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused(tmp_path: Path, case: str) -> None:
    content, message = MALFORMED[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(str(path))
    assert "model.gguf" in str(error.value)


def test_lying_counts_cost_no_memory(tmp_path: Path) -> None:
    for index, (content, _) in enumerate(MALFORMED.values()):
        path = tmp_path / f"{index}.gguf"
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(CheckpointError):
            read_gguf(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 300_000


LARGE = {
    "a key": struct.pack("<Q", 1 << 29),
    "a string": text("k") + struct.pack("<IQ", STRING, 1 << 29),
    "numbers": text("k") + struct.pack("<IIQ", ARRAY, F32, 1 << 27),
    "strings": text("k") + struct.pack("<IIQQ", ARRAY, STRING, 2, 1 << 29),
}


@pytest.mark.parametrize("case", LARGE)
def test_headers_have_a_limit_in_large_files_too(case: str, tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    path.write_bytes(header(0, 1) + LARGE[case])
    with path.open("r+b") as file:
        file.truncate(1 << 31)  # of which the file system stores nothing
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="ends within"):
        read_gguf(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = tiny_llama(tmp_path / "whole.gguf").read_bytes()
    data_size = sum(t.nbytes for t in read_gguf(tmp_path / "whole.gguf").tensors.values())
    lengths = [*range(0, len(whole) - data_size, 7), *range(len(whole) - data_size, len(whole), 4099), len(whole) - 64]
    for length in lengths:
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(str(tmp_path / "cut.gguf"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("whole") / "w.gguf")


CHANGES = st.lists(st.tuples(st.integers(4, 11_000), st.integers(0, 255)), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(changes=CHANGES)
def test_changed_bytes_give_typed_errors_or_checkpoints(
    tmp_path_factory: pytest.TempPathFactory, whole: Path, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("changed") / "w.gguf"
    changed = bytearray(whole.read_bytes())
    for position, value in changes:
        changed[position] = value
    path.write_bytes(changed)
    try:
        checkpoint = open_checkpoint(str(path))
        for tensor in checkpoint.tensors.values():
            tensor.rows(0, min(3, tensor.shape[0]))
    except CheckpointError:
        pass


def test_all_value_types_are_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    adders: dict[str, tuple[Callable[..., None], Any]] = {
        "u8": (writer.add_uint8, 200),
        "i8": (writer.add_int8, -3),
        "u16": (writer.add_uint16, 60_000),
        "i16": (writer.add_int16, -300),
        "u32": (writer.add_uint32, 2**31),
        "i32": (writer.add_int32, -(2**31)),
        "u64": (writer.add_uint64, 2**63),
        "i64": (writer.add_int64, -(2**63)),
        "f32": (writer.add_float32, 0.5),
        "f64": (writer.add_float64, 0.1),
        "bool": (writer.add_bool, True),
        "text": (writer.add_string, "gr\u00fc\u00dfe"),
        "texts": (writer.add_array, ["a", "\u4f60"]),
    }
    for key, (add, value) in adders.items():
        add(key, value)
    writer.add_array("numbers", [1, -2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = read_gguf(tmp_path / "w.gguf").metadata
    assert {key: metadata[key] for key in adders} == {key: value for key, (_, value) in adders.items()}
    assert metadata["numbers"].tolist() == [1, -2, 3]


def test_alignment_of_the_file_is_used(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    writer.add_custom_alignment(256)
    for name in "ab":
        writer.add_tensor(name, np.full(3, ord(name), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = read_gguf(tmp_path / "w.gguf").tensors
    expected = {t.name: t.data_offset for t in gguf.GGUFReader(tmp_path / "w.gguf").tensors}
    assert {name: info.offset for name, info in tensors.items()} == expected
    assert all(info.offset % 256 == 0 for info in tensors.values())


def test_unknown_architectures_offer_the_nearest(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "w.gguf", "qwen1", {}, {"token_embd.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(UnsupportedModelError, match="architecture 'qwen1'; did you mean 'qwen3' or 'qwen2'"):
        open_checkpoint(str(path))


def test_what_an_unknown_architecture_was_made_from_is_named(tmp_path: Path) -> None:
    origin = {"general.base_model.0.repo_url": "https://example.org/jais"}
    path = write_gguf(tmp_path / "w.gguf", "jais", origin, {"token_embd.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(UnsupportedModelError, match=r"made from \(https://example.org/jais\), with --via optimum"):
        open_checkpoint(str(path))
