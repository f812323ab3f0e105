"""Saved sessions: the same numbers after loading, and every damaged or foreign file refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import errors
from edgellm.sessions import file as state_file
from edgellm.sessions.header import MAGIC, MAX_HEADER, Header, StoredCache, lay_out, read_header
from tiny_package import TinyConfig, write_package

PackageMaker = Callable[[TinyConfig], Path]

TEXT = list(range(60, 100))
MORE = [*TEXT, 1, 2, 3]
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}
HASH = "0" * 64


@pytest.fixture
def saved(model: edgellm.Model, tmp_path: Path) -> Path:
    with model.session() as session:
        session.prefill(TEXT)
        session.metadata["title"] = "numbers"
        session.save(tmp_path / "one.session")
    return tmp_path / "one.session"


def answer(session: edgellm.GenerationSession, prompt: list[int] = MORE) -> Any:
    found = session.generate(prompt, max_new_tokens=8, **WITHOUT_END)
    return found.tokens, found.logprobs


# Saving and loading


@pytest.mark.parametrize("config", [TinyConfig(), TinyConfig(long_from=24), TinyConfig(dtype="float16", target="cuda")])
def test_a_loaded_session_gives_the_same_bits(make_package: PackageMaker, config: TinyConfig, tmp_path: Path) -> None:
    model = edgellm.load(make_package(config), device="cpu", threads=1, prefill_chunk=4)
    for length in (10, 40):
        session = model.session()
        session.generate(TEXT[:length], max_new_tokens=7, **WITHOUT_END)
        session.save(tmp_path / "s")
        loaded = model.load_session(tmp_path / "s")
        assert (loaded.tokens, loaded.reusable_tokens) == (session.tokens, session.reusable_tokens)
        prompt, seen = [*session.tokens, 9, 9], [[], []]  # type: ignore[var-annotated]
        found = [
            s.generate(prompt, max_new_tokens=8, progress=lambda *step, to=to: to.append(step), **WITHOUT_END)
            for s, to in zip((session, loaded), seen, strict=True)
        ]
        assert found[0].tokens == found[1].tokens
        assert found[0].logprobs == found[1].logprobs  # the same bits
        assert seen[0] == seen[1]
        assert len(seen[1]) == 1


def test_across_processes(model: edgellm.Model, package: Path, saved: Path) -> None:
    program = (
        "import sys, json, edgellm\n"
        "session = edgellm.load(sys.argv[1], threads=1).load_session(sys.argv[2])\n"
        "found = session.generate(json.loads(sys.argv[3]), max_new_tokens=8, eos_token_id=[], logprobs=True)\n"
        "print(json.dumps([session.metadata, found.tokens, found.logprobs]))"
    )
    command = [sys.executable, "-c", program, str(package), str(saved), json.dumps(MORE)]
    metadata, tokens, logprobs = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert metadata == {"title": "numbers"}
    session = model.session()
    session.prefill(TEXT)
    assert (tuple(tokens), tuple(logprobs)) == answer(session)


def test_what_a_file_holds(saved: Path, model: edgellm.Model) -> None:
    """The format, byte for byte, as the documentation has it."""
    data = saved.read_bytes()
    magic, version, size, _ = struct.unpack_from("<8sII32s", data)
    header = json.loads(data[48 : 48 + size])
    assert (magic, version, (48 + size) % 64) == (MAGIC, 1, 0)
    assert (header["tokens"], header["read"], header["metadata"]) == (40, 40, {"title": "numbers"})
    assert np.frombuffer(data, "<i8", 40, 48 + size).tolist() == TEXT
    session = model.session()
    session.prefill(TEXT)
    _, arrays = session._holder.engine.held()
    start = 48 + size + 320
    for array in arrays:
        assert start % 64 == 0
        np.testing.assert_array_equal(np.frombuffer(data, "<f4", array.size, start).reshape(array.shape), array)
        start += array.nbytes
    assert start == len(data)
    assert saved.stat().st_mode & 0o777 == 0o600


def test_an_empty_session(model: edgellm.Model, tmp_path: Path) -> None:
    session = model.session()
    session.metadata["note"] = "ä\ud800"
    session.save(tmp_path / "s")
    loaded = model.load_session(tmp_path / "s")
    assert (loaded.tokens, loaded.metadata) == ((), {"note": "ä\ud800"})
    session.prefill(TEXT)
    assert answer(loaded) == answer(session)


def test_saving_again_replaces_the_file(model: edgellm.Model, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(saved)
    session = model.load_session(tmp_path / "link")
    session.trim(5)
    session.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert model.load_session(saved).tokens == tuple(TEXT[:5])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "one.session"]


def test_the_settings_of_a_loaded_session(model: edgellm.Model, saved: Path) -> None:
    each = model.info.cache_bytes_per_token
    session = model.load_session(saved, max_bytes=50 * each, reuse_generated=True)
    assert (session.max_tokens, session.reuse_generated) == (50, True)
    assert len(session.generate(MORE, max_new_tokens=30, **WITHOUT_END).tokens) == 7
    assert session.nbytes <= 50 * each
    with pytest.raises(errors.MemoryBudgetError, match="the saved session has 40 tokens"):
        model.load_session(saved, max_bytes=30 * each)


def test_tables_that_change_with_every_token(package: Path, tmp_path: Path) -> None:
    model = edgellm.load(package)
    facts = model.manifest.model
    changed = replace(model.manifest, model=replace(facts, rope=replace(facts.rope, has_length_input=True)))
    model._session_source = replace(model._session_source, reader=replace(model._reader, manifest=changed))
    with pytest.raises(errors.SessionError, match="change with every token"):
        model.session().save(tmp_path / "s")
    with pytest.raises(errors.SessionError, match="change with every token"):
        model.load_session(tmp_path / "s")
    assert not list(tmp_path.iterdir())


# Files of others


@pytest.mark.parametrize(
    "config", [TinyConfig(seed=8), TinyConfig(layers=3), TinyConfig(dtype="float16", target="cuda")]
)
def test_another_model(make_package: PackageMaker, saved: Path, config: TinyConfig) -> None:
    model = edgellm.load(make_package(config), device="cpu")
    with pytest.raises(errors.SessionMismatchError, match=r"another model \(its graphs or weights differ\)") as caught:
        model.load_session(saved)
    assert ("another kind of cache" in str(caught.value)) == (config.layers == 3 or config.dtype == "float16")


def test_another_tokenizer(saved: Path, tmp_path: Path) -> None:
    copy = write_package(tmp_path / "package")
    manifest = json.loads((copy / "edgellm.json").read_text())
    data = json.dumps(json.loads((copy / "tokenizer.json").read_text()), indent=1).encode()
    (copy / "tokenizer.json").write_bytes(data)
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / "edgellm.json").write_text(
        json.dumps({**manifest, "files": {**manifest["files"], "tokenizer.json": entry}})
    )
    with pytest.raises(
        errors.SessionMismatchError, match="loaded: it was saved with another tokenizer; save the session again"
    ):
        edgellm.load(copy).load_session(saved)


def test_a_copy_of_the_package_is_the_same_model(saved: Path, tmp_path: Path) -> None:
    """Also where its chat template or its report has changed."""
    copy = write_package(tmp_path / "package")
    manifest = json.loads((copy / "edgellm.json").read_text())
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    del manifest["files"]["chat_template.jinja"]
    (copy / "edgellm.json").write_text(json.dumps(manifest))
    assert edgellm.load(copy).load_session(saved).tokens == tuple(TEXT)


# Damaged files


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
    with pytest.raises(errors.SessionCorruptError, match=message) as caught:
        model.load_session(saved)
    assert "\n" not in str(caught.value)


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


# Paths and disks


def test_paths_that_cannot_be_read(model: edgellm.Model, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, error, message in (
        (tmp_path / "nothing", errors.SessionNotFoundError, "there is no saved session at"),
        (tmp_path / "nothing" / "below", errors.SessionNotFoundError, "there is no saved session at"),
        (tmp_path, errors.SessionFileError, "it is not a file"),
        (tmp_path / "pipe", errors.SessionFileError, "it is not a file"),
        (Path("/dev/zero"), errors.SessionFileError, "it is not a file"),
        (tmp_path / ("x" * 300), errors.SessionFileError, "File name too long"),
        (tmp_path / "a\0b", errors.SessionFileError, "null"),
    ):
        with pytest.raises(error, match=message):
            model.load_session(path)
    assert issubclass(errors.SessionNotFoundError, FileNotFoundError)


def test_paths_that_cannot_be_written(model: edgellm.Model, tmp_path: Path) -> None:
    session = model.session()
    session.prefill(TEXT)
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "no" / "s", tmp_path / "file" / "s", tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(errors.SessionWriteError, match="cannot be saved to"):
            session.save(path)
    assert issubclass(errors.SessionWriteError, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert session.tokens == tuple(TEXT)  # an error while saving loses nothing


def test_a_full_disk(model: edgellm.Model, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    session = model.load_session(saved)
    session.trim(20)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_file.os, "fsync", full)
    with pytest.raises(errors.SessionWriteError, match="No space left on device; what was there before is unchanged"):
        session.save(saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["one.session"]
    assert len(session.tokens) == 20


@pytest.mark.parametrize(
    "metadata", [{"x": object()}, {"x": float("nan")}, {"x": "y" * MAX_HEADER}], ids=["object", "nan", "large"]
)
def test_metadata_that_cannot_be_saved(model: edgellm.Model, saved: Path, metadata: dict[str, Any]) -> None:
    before = saved.read_bytes()
    session = model.load_session(saved)
    session.metadata.update(metadata)
    with pytest.raises(errors.InputError, match="metadata"):
        session.save(saved)
    assert (saved.read_bytes(), session.tokens) == (before, tuple(TEXT))


KILLED = """
import os, sys, time, edgellm
from edgellm.sessions import file
session = edgellm.load(sys.argv[1], threads=1).load_session(sys.argv[2])
session.trim(7)
def stop(*_):
    print("waiting", flush=True)
    time.sleep(60)
setattr(file.Path if sys.argv[3] == "replace" else file.os, sys.argv[3], stop)
session.save(sys.argv[2])
"""


@pytest.mark.parametrize("stage", ["fsync", "replace"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_while_saving(model: edgellm.Model, package: Path, saved: Path, stage: str, number: int) -> None:
    """The old file is whole; what a killed process left is removed by the next one to save."""
    before = saved.read_bytes()
    command = [sys.executable, "-c", KILLED, str(package), str(saved), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(number)
    assert saved.read_bytes() == before
    left = [path.name for path in saved.parent.iterdir() if path != saved]
    assert len(left) == (number != signal.SIGINT)
    session = model.load_session(saved)
    session.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_another_process_that_is_saving_is_left_alone(saved: Path) -> None:
    with state_file._partial_file(saved) as (_, partial):
        state_file._remove_stale(saved)
        assert partial.exists()
    assert not partial.exists()


def test_a_machine_of_another_byte_order(model: edgellm.Model, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file.sys, "byteorder", "big")
    with pytest.raises(errors.SessionMismatchError, match="little-endian, and this machine is big-endian"):
        model.load_session(saved)
    with pytest.raises(errors.SessionMismatchError, match="big-endian"):
        model.session().save(saved)
