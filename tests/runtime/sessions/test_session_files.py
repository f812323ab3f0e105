"""Saved sessions: the same numbers after loading, and every damaged or foreign file refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import errors
from edgellm.sessions import file as state_file
from edgellm.sessions.header import MAGIC, MAX_HEADER
from tiny_package import TinyConfig, write_package

PackageMaker = Callable[[TinyConfig], Path]

TEXT = list(range(60, 100))
MORE = [*TEXT, 1, 2, 3]
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}
HASH = "0" * 64


def answer(session: edgellm.GenerationSession, prompt: list[int] = MORE) -> Any:
    found = session.generate(prompt, max_new_tokens=8, **WITHOUT_END)
    return found.tokens, found.logprobs


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
