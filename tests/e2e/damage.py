"""Ways to damage checkpoints, GGUF files and packages: each takes the path of a copy and changes it in place."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from edgellm.package.files import read_manifest, sha256_of, write_manifest
from edgellm.package.manifest import FileEntry
from gguf_files import byte_level, tiny_llama

Damage = Callable[[Path], None]
Boundary = Callable[[pytest.MonkeyPatch], None]

ABSENT = object()  # as a value of `edited`: no such key


def both(*damages: Damage) -> Damage:
    def damage(path: Path) -> None:
        for each in damages:
            each(path)

    return damage


# Any file


def nothing(path: Path) -> None:
    """Not damaged."""


def gone(*names: str) -> Damage:
    def damage(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return damage


def emptied(path: Path) -> None:
    """A directory with nothing in it."""
    shutil.rmtree(path)
    path.mkdir()


def written(name: str, content: bytes) -> Damage:
    def damage(path: Path) -> None:
        (path / name).write_bytes(content)

    return damage


def cut(name: str, share: float) -> Damage:
    """The first `share` of a file; "" is the path itself."""

    def damage(path: Path) -> None:
        file = path / name
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    return damage


def edited(name: str, **changes: Any) -> Damage:
    """Keys of a JSON object replaced, removed (ABSENT) or added. Keys may lead inside: cache__head_dim."""

    def damage(path: Path) -> None:
        data = json.loads((path / name).read_text())
        for key, value in changes.items():
            *outer, last = key.split("__")
            place = data
            for part in outer:
                place = place[part]
            if value is ABSENT:
                del place[last]
            else:
                place[last] = value
        (path / name).write_text(json.dumps(data))

    return damage


def config(**changes: Any) -> Damage:
    return edited("config.json", **changes)


# Checkpoints

WEIGHTS = "model.safetensors"
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """The header of the weight file changed, its data left alone."""

    def damage(path: Path) -> None:
        data = (path / WEIGHTS).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:end])
        change(entries)
        text = json.dumps(entries).encode()
        (path / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    return damage


def header_length(length: int) -> Damage:
    def damage(path: Path) -> None:
        data = (path / WEIGHTS).read_bytes()
        (path / WEIGHTS).write_bytes(length.to_bytes(8, "little") + data[8:])

    return damage


def tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    """The weight file written again with other tensors."""

    def damage(path: Path) -> None:
        arrays = load_file(path / WEIGHTS)
        change(arrays)
        save_file(arrays, path / WEIGHTS)

    return damage


def pickled_program(path: Path) -> None:
    """In the place of the weights, a PyTorch file that asks for a command to be run."""
    (path / WEIGHTS).unlink()
    program = b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00false\x85R."
    with zipfile.ZipFile(path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", program)


def integer_weights(arrays: dict[str, Any]) -> None:
    arrays.update({name: array.astype(np.int8) for name, array in arrays.items() if array.ndim == 2})


def not_numbers(arrays: dict[str, Any]) -> None:
    arrays[NORM] = np.full_like(arrays[NORM], np.nan)


def missing_and_extra(arrays: dict[str, Any]) -> None:
    del arrays[NORM]
    del arrays["model.layers.1.mlp.up_proj.weight"]
    arrays["model.layers.0.self_attn.q_norm.weight"] = np.ones(16, np.float32)
    arrays[EMBEDDING] = arrays[EMBEDDING][:-1]


def index_map(change: Callable[[dict[str, str]], object]) -> Damage:
    def damage(path: Path) -> None:
        file = path / "model.safetensors.index.json"
        data = json.loads(file.read_text())
        change(data["weight_map"])
        file.write_text(json.dumps(data))

    return damage


# GGUF files: written anew


def gguf(**metadata: Any) -> Damage:
    """Keys with two underscores for a dot: tokenizer__ggml__model."""

    def damage(path: Path) -> None:
        keys = {key.replace("__", "."): value for key, value in metadata.items()}
        tokenizer = byte_level()
        tokenizer.update({key: keys.pop(key) for key in list(keys) if key.startswith("tokenizer")})
        tiny_llama(path, tokenizer=tokenizer, **keys)

    return damage


def replaced(old: bytes, new: bytes) -> Damage:
    """The first occurrence of some bytes of a file."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return damage


def unknown_type(path: Path) -> None:
    """The type of the first tensor becomes 77. Its entry: name, dimensions, shape, type."""
    data = bytearray(path.read_bytes())
    at = data.index(b"token_embd.weight") + len("token_embd.weight")
    at += 4 + 8 * int.from_bytes(data[at : at + 4], "little")
    data[at : at + 4] = (77).to_bytes(4, "little")
    path.write_bytes(data)


# Packages


def manifest(**changes: Any) -> Damage:
    return edited("edgellm.json", **changes)


def sealed(damage: Damage) -> Damage:
    """Damage that the manifest's sizes and hashes do not give away."""

    def sealing(path: Path) -> None:
        damage(path)
        before = read_manifest(path)
        files = {p.name: FileEntry(p.stat().st_size, sha256_of(p)) for p in path.iterdir() if p.name != "edgellm.json"}
        write_manifest(path, replace(before, files=files))

    return sealing


def graph(change: Callable[[Any], object]) -> Damage:
    """The ONNX model changed, its weights left alone."""

    def damage(path: Path) -> None:
        model = onnx.load(path / "model.onnx", load_external_data=False)
        change(model)
        (path / "model.onnx").write_bytes(model.SerializeToString())

    return sealed(damage)


def without_input(name: str) -> Callable[[Any], object]:
    def change(model: Any) -> None:
        inputs = model.graph.input
        inputs.remove(next(i for i in inputs if i.name == name))

    return change


def with_another_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1]))


def without_output(name: str) -> Callable[[Any], object]:
    def change(model: Any) -> None:
        outputs = model.graph.output
        outputs.remove(next(o for o in outputs if o.name == name))

    return change


def with_unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Teleport"


def external_data(key: str, value: str) -> Callable[[Any], object]:
    """One entry (location, offset or length) of all external weights."""

    def change(model: Any) -> None:
        entries = [e for t in model.graph.initializer for e in t.external_data if e.key == key]
        assert entries
        for entry in entries:
            entry.value = value

    return change


def linked_outside(name: str) -> Damage:
    """A file of the package becomes a link to itself, moved out."""

    def damage(path: Path) -> None:
        (path / name).rename(path.parent / f"outside-{name}")
        (path / name).symlink_to(path.parent / f"outside-{name}")

    return damage


def flipped(name: str) -> Damage:
    """One bit in the middle of a file."""

    def damage(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data)

    return damage


# Boundaries to the system


def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not replaced."""


def not_importable(name: str) -> Boundary:
    def block(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, name, None)

    return block


def unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one listens on the discard port."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nonexistent")


def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise MemoryError("Unable to allocate 9.00 TiB")

    monkeypatch.setattr(np, "ascontiguousarray", refuse)


def failing(code: int, name: str, *, after: int = 0) -> Boundary:
    """A function of `os` that raises this error from its call number `after` on."""

    def break_it(monkeypatch: pytest.MonkeyPatch) -> None:
        original, calls = getattr(os, name), 0

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                raise OSError(code, os.strerror(code))
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    return break_it
