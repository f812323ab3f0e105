"""Files of sessions that are damaged or no such files: every one is refused."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import errors
from edgellm.sessions.header import MAGIC, MAX_HEADER, Header, StoredCache, lay_out, read_header

TEXT = list(range(60, 100))
HASH = "0" * 64


def test_every_flipped_byte_is_found(model: edgellm.Model, saved: Path, tmp_path: Path) -> None:
    data, other = saved.read_bytes(), tmp_path / "other"
    start = 48 + struct.unpack_from("<I", data, 12)[0]
    places = {*range(start + 64), *range(start + 64, len(data), 97), len(data) - 1}
    for place in sorted(places):
        other.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises((errors.SessionCorruptError, errors.SessionVersionError)):
            model.load_session(other)


def test_every_length_but_the_right_one(model: edgellm.Model, saved: Path, tmp_path: Path) -> None:
    data, other = saved.read_bytes(), tmp_path / "other"
    for length in (0, 1, 7, 8, 20, 47, 48, 49, 100, 1000, len(data) // 2, len(data) - 1):
        other.write_bytes(data[:length])
        with pytest.raises(errors.SessionCorruptError):
            model.load_session(other)
    for more in (b"\0", b"\0" * 64, data):
        other.write_bytes(data + more)
        with pytest.raises(
            errors.SessionCorruptError, match=f"it has {len(data + more)} bytes, and its header says {len(data)}"
        ):
            model.load_session(other)


def rewritten(data: bytes, **changes: Any) -> bytes:
    """The file with another header, whose own checksum is right."""
    size = struct.unpack_from("<I", data, 12)[0]
    header = {**json.loads(data[48 : 48 + size]), **changes}
    text = json.dumps({name: value for name, value in header.items() if value is not ...}).encode()
    text += b" " * (-(48 + len(text)) % 64)
    digest = hashlib.sha256(text).digest()
    return struct.pack("<8sII32s", MAGIC, 1, len(text), digest) + text + data[48 + size :]


CACHE = {"num_layers": 2, "num_kv_heads": 2, "head_dim": 16, "dtype": "float32"}
STATES = {"layers": [0], "width": 10, "kernel": 4, "num_heads": 2, "head_dim": 4, "state_size": 3}
CONV = {"layers": [0], "width": 8, "kernel": 3, "dtype": "float32"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 41}, "its header says"),
        ({"tokens": -1}, "tokens is -1"),
        ({"tokens": 10**30}, "its header says"),
        ({"tokens": True}, "tokens is True"),
        ({"tokens": "40"}, "tokens is '40'"),
        ({"tokens": ...}, "missing tokens"),
        ({"read": 41}, "41 of 40 tokens were read"),
        ({"read": -1}, "read is -1"),
        ({"cache": {**CACHE, "num_layers": 10**9}}, "checksums"),
        ({"cache": {**CACHE, "num_layers": 0}}, "num_layers is 0"),
        ({"cache": {**CACHE, "head_dim": 10**18}}, "its header says"),
        ({"cache": {**CACHE, "dtype": "float64"}}, "dtype is 'float64'"),
        ({"cache": {**CACHE, "dtype": "object"}}, "dtype is 'object'"),
        ({"cache": []}, "expected an object"),
        ({"cache": {**CACHE, "conv": CONV}}, "5 checksums for 2 layers"),
        ({"cache": {**CACHE, "conv": {**CONV, "layers": [0, 0]}}}, "cache.conv is"),
        ({"cache": {**CACHE, "conv": {**CONV, "layers": [0, 1]}}}, "cache.conv is"),
        ({"cache": {**CACHE, "conv": {**CONV, "layers": [2]}}}, "cache.conv is"),
        ({"cache": {**CACHE, "conv": {**CONV, "kernel": 0}}}, "cache.conv is"),
        ({"cache": {**CACHE, "conv": {**CONV, "width": -5}}}, "cache.conv is"),
        ({"cache": {**CACHE, "states": STATES}}, "its header says"),
        ({"cache": {**CACHE, "states": {**STATES, "state_size": 10**18}}}, "its header says"),
        ({"cache": {**CACHE, "states": {**STATES, "layers": [0, 0]}}}, "cache.states is"),
        ({"cache": {**CACHE, "states": {**STATES, "layers": [2]}}}, "cache.states is"),
        ({"cache": {**CACHE, "states": {**STATES, "kernel": 1}}}, "cache.states is"),
        ({"cache": {**CACHE, "states": STATES, "conv": CONV}}, "cache.states is"),
        ({"cache": {**CACHE, "num_layers": 10**9, "states": STATES}}, "checksums"),
        ({"checksums": [7]}, "1 checksums for 2 layers"),
        ({"checksums": [7] * 5}, "checksum of its array 0"),
        ({"checksums": None}, "checksums is None"),
        ({"checksums": ["7"] * 5}, "checksums is '7'"),
        ({"byte_order": "big"}, "byte_order is 'big'"),
        ({"metadata": []}, "metadata"),
        ({"surplus": 1}, "unknown surplus"),
        ({"package": 5}, "package is 5"),
    ],
)
def test_headers_that_lie(model: edgellm.Model, saved: Path, changes: dict[str, Any], message: str) -> None:
    saved.write_bytes(rewritten(saved.read_bytes(), **changes))
    tracemalloc.start()
    try:
        with pytest.raises(errors.SessionCorruptError, match=message) as caught:
            model.load_session(saved)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert most < 8 << 20, "whatever numbers it has"


def test_tokens_that_are_not_the_models(model: edgellm.Model, saved: Path) -> None:
    data = saved.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    for wrong in (-1, 264, 2**62):
        tokens = np.array([*TEXT[:-1], wrong]).tobytes()
        checksums = json.loads(data[48 : 48 + size])["checksums"]
        checksums[0] = zlib.crc32(tokens)
        changed = rewritten(data[: 48 + size] + tokens + data[48 + size + len(tokens) :], checksums=checksums)
        saved.write_bytes(changed)
        with pytest.raises(errors.SessionCorruptError, match="its tokens are not this model's"):
            model.load_session(saved)


def test_a_hole_of_any_size(model: edgellm.Model, saved: Path) -> None:
    """A file may say that it has a terabyte, and have it, without taking a block of the disk."""
    data = rewritten(saved.read_bytes(), tokens=10**9)
    start = 48 + struct.unpack_from("<I", data, 12)[0]
    saved.write_bytes(data[:start])
    os.truncate(saved, start + 10**9 * (8 + model.info.cache_bytes_per_token))
    with pytest.raises(errors.SessionCorruptError, match="it has 1000000000 tokens, and the model's context 96"):
        model.load_session(saved)


def prelude(version: int, size: int) -> bytes:
    return struct.pack("<8sII32s", MAGIC, version, size, bytes(32))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", errors.SessionCorruptError, "does not begin as a saved session does"),
        (b"PK\x03\x04" * 100, errors.SessionCorruptError, "does not begin as a saved session does"),
        (MAGIC, errors.SessionCorruptError, "it ends after 8 bytes"),
        (prelude(2, 16) + b" " * 16, errors.SessionVersionError, "it has format version 2, this edgellm reads up to 1"),
        (prelude(0, 16) + b" " * 16, errors.SessionCorruptError, "its format version is 0"),
        (
            prelude(1, 2**32 - 1) + b" " * 16,
            errors.SessionCorruptError,
            "its header has 4294967295 bytes, and the file 64",
        ),
        (prelude(1, MAX_HEADER + 16), errors.SessionCorruptError, "its header has"),
        (prelude(1, 15) + b" " * 16, errors.SessionCorruptError, "its header has 15 bytes"),
        (prelude(1, 16) + b" " * 16, errors.SessionCorruptError, "the checksum of its header is wrong"),
    ],
)
def test_no_such_files(model: edgellm.Model, tmp_path: Path, data: bytes, error: type[Exception], message: str) -> None:
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(error, match=message):
        model.load_session(tmp_path / "s")


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"{}", b"[]", b"5", b"NaN", b'{"a":' * 5000, b"9" * 5000])
def test_headers_that_are_no_header(text: bytes) -> None:
    text += b" " * (-(48 + len(text)) % 64)
    digest = hashlib.sha256(text).digest()
    with pytest.raises(errors.SessionCorruptError, match="header"):
        read_header(BytesIO(struct.pack("<8sII32s", MAGIC, 1, len(text), digest) + text))


def test_header_and_layout_agree() -> None:
    header = Header(
        HASH, "", StoredCache(2, 3, 5, "int8"), 7, 7, False, (1, 2, 3, 4, 5), metadata={"a": ["b", 1.5, None]}
    )
    start = header.to_bytes()
    layout = lay_out(header, len(start))
    assert [extent.size for extent in layout.extents] == [56, 105, 105, 105, 105]
    assert all(extent.offset % 64 == 0 for extent in layout.extents)
    assert read_header(BytesIO(start + bytes(layout.file_bytes - len(start)))) == layout
