"""Calls that need more memory than there is: a clear error, and the model goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edgellm
import starving
from edgellm.cli import cli
from edgellm.engines.in_place.host_cache import HostCache
from edgellm.errors import OutOfMemoryError
from edgellm.loading import load_as
from edgellm.package.manifest import CacheTensor

LONG: dict[str, Any] = {"max_new_tokens": 400, "eos_token_id": []}  # more than a cache has room for at first


@pytest.mark.parametrize("spare", [4 << 20, 16 << 20])
def test_the_system_refuses_memory(packages: Path, spare: int) -> None:
    command = [sys.executable, starving.__file__, str(packages / "decoder"), str(spare)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert all("MemoryError" in kinds for kinds in found.values()), found
    assert found["batch"][0] == "OutOfMemoryError"
    assert found["batch"][-1].startswith("no memory for a cache of 400 rows of 320 tokens; use a shorter prompt, fewer")


def failing_from(number: int) -> Callable[..., Any]:
    """Allocates buffers of caches; fails from this growth's buffer on. The first allocation of a call always works."""
    original, grown = HostCache._empty, 0

    def allocate(self: HostCache, tensor: CacheTensor, rows: int, capacity: int) -> Any:
        nonlocal grown
        if self.capacity:
            grown += 1
            if grown > number:
                raise np._core._exceptions._ArrayMemoryError((rows, capacity), np.dtype(np.float32))
        return original(self, tensor, rows, capacity)

    return allocate


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("name", ["decoder", "decoder-int8", "encoder-decoder"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_no_memory_at_growth(
    packages: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], number: int
) -> None:
    """In the first of the buffers, and when some of them have moved."""
    model = edgellm.load(packages / name, threads=1)
    assert not isinstance(model, edgellm.EncoderModel)
    expected = model.generate("hello", **LONG, **options).tokens
    model.reset()
    with monkeypatch.context() as patch:
        patch.setattr(HostCache, "_empty", failing_from(number))
        with pytest.raises(OutOfMemoryError, match=r"no memory for a cache of \d rows of \d+ tokens") as raised:
            model.generate("hello", **LONG, **options)
        assert isinstance(raised.value, MemoryError)
        assert model.generate("hello", max_new_tokens=5, eos_token_id=[]).tokens
    assert model.generate("hello", **LONG, **options).tokens == expected


def test_a_stream_gives_what_it_had(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_as(edgellm.Model, packages / "decoder", threads=1)
    expected = model.generate("hello", **LONG).tokens
    model.reset()
    monkeypatch.setattr(HostCache, "_empty", failing_from(0))
    stream = model.stream("hello", **LONG)
    room = 320 - len("hello")  # the first allocation is for 256 tokens beyond the prompt, a multiple of 64
    tokens = [next(stream).tokens[0] for _ in range(room + 1)]
    with pytest.raises(OutOfMemoryError):
        next(stream)
    assert tuple(tokens) == expected[: len(tokens)]
    assert list(stream) == []


def test_a_session_is_empty_and_goes_on(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_as(edgellm.Model, packages / "decoder", threads=1)
    expected = model.generate("hello", **LONG).tokens
    with model.session() as session:
        other = session.fork()
        with monkeypatch.context() as patch:
            patch.setattr(HostCache, "_empty", failing_from(3))
            with pytest.raises(OutOfMemoryError):
                session.generate("hello", **LONG)
        assert session.tokens == ()
        assert session.generate("hello", **LONG).tokens == expected
        assert other.generate("hello", **LONG).tokens == expected


def test_the_command_line(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(self: HostCache, tensor: CacheTensor, rows: int, capacity: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(HostCache, "_empty", allocate)
    ended = CliRunner().invoke(cli, ["generate", str(packages / "decoder"), "hello"])
    assert (ended.exit_code, ended.stdout) == (OutOfMemoryError.exit_code, "")
    assert ended.stderr.startswith("error: no memory for a cache of 1 rows of 320 tokens; use a shorter prompt")
    assert ended.stderr.count("\n") == 1


def test_no_memory_inside_of_onnxruntime(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words become the same error."""
    model = load_as(edgellm.Model, packages / "decoder", threads=1)
    expected = model.generate("hello", max_new_tokens=5).tokens

    class Full:
        def run_with_iobinding(self, *arguments: Any) -> None:
            raise RuntimeError("bfc_arena.cc:360 AllocateRawInternal Failed to allocate memory for requested buffer")

    with monkeypatch.context() as patch:
        patch.setattr(model._loaded, "_session", Full())
        with pytest.raises(OutOfMemoryError, match="no memory for running the model; use a shorter prompt, a smaller"):
            model.logits("hello")
    assert model.generate("hello", max_new_tokens=5).tokens == expected
