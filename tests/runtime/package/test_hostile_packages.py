"""Packages made to reach beyond themselves: their manifests are in order, hashes and all."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import edgellm
from edgellm.errors import PackageCorruptError, PackageError, PackageNotFoundError
from edgellm.package.files import read_manifest, sha256_of, write_manifest
from edgellm.package.manifest import FileEntry, Manifest
from tiny_package import write_package

DATA = "model.onnx.data"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


def edited_manifest(package: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((package / "edgellm.json").read_bytes())
    edit(data)
    (package / "edgellm.json").write_text(json.dumps(data))


def with_hashes(package: Path) -> None:
    """The manifest as somebody would write it who wants the package to be loaded."""
    data = read_manifest(package).to_dict()
    names = [name for name in data["files"] if (package / name).is_file()]
    data["files"] = {name: FileEntry((package / name).stat().st_size, sha256_of(package / name)) for name in names}
    write_manifest(package, Manifest.from_dict(json.loads(json.dumps(data, default=vars))))


def moved_weights(package: Path, location: str) -> None:
    """The graph's weights lie at `location`, as far as the graph says."""
    model = onnx.load(package / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (package / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["../secret", "/ABSOLUTE", "link", "../package/../secret", "folder/../../secret"])
def test_weights_outside_the_package(location: str, package: Path) -> None:
    secret = package.parent / "secret"
    (package / DATA).rename(secret)
    (package / "link").symlink_to(secret)
    (package / "folder").mkdir()
    moved_weights(package, location.replace("/ABSOLUTE", str(secret)))
    with_hashes(package)
    with pytest.raises(PackageCorruptError, match="cannot be loaded"):
        edgellm.load(package)


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("offset", "4611686018427387904"), ("length", "1" * 18)])
def test_weights_beyond_their_file(key: str, value: str, package: Path) -> None:
    model = onnx.load(package / "model.onnx", load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    next(entry for entry in entries if entry.key == key).value = value
    (package / "model.onnx").write_bytes(model.SerializeToString())
    with_hashes(package)
    with pytest.raises(edgellm.EdgellmError):
        edgellm.load(package)


def test_links_and_names_that_lead_outside(package: Path) -> None:
    outside = package.parent / "tokenizer.json"
    (package / "tokenizer.json").rename(outside)
    (package / "tokenizer.json").symlink_to(outside)
    with pytest.raises(PackageCorruptError, match=r"tokenizer\.json in .* leads outside the package"):
        edgellm.load(package)
    for name in ("../tokenizer.json", str(outside), "a/../../tokenizer.json", "C:\\x", "", "a\0b", "\ud800"):
        edited_manifest(package, lambda data, name=name: data["files"].update({name: data["files"]["model.onnx"]}))
        with pytest.raises(PackageError):
            edgellm.load(package)


@pytest.mark.parametrize("name", ["edgellm.json", "model.onnx", DATA, "generation_config.json", "chat_template.jinja"])
def test_pipes_and_devices_are_not_waited_for(name: str, package: Path) -> None:
    (package / name).unlink()
    os.mkfifo(package / name)
    with pytest.raises((PackageNotFoundError, PackageCorruptError)):
        edgellm.load(package)
    (package / name).unlink()
    (package / name).symlink_to("/dev/zero")
    with pytest.raises((PackageNotFoundError, PackageCorruptError)):
        edgellm.load(package)


def test_graphs_of_another_format(package: Path) -> None:
    def renamed(data: dict[str, Any]) -> None:
        data["graphs"]["model"]["file"] = "model.ort"
        data["files"]["model.ort"] = data["files"].pop("model.onnx")

    (package / "model.onnx").rename(package / "model.ort")
    edited_manifest(package, renamed)
    with pytest.raises(PackageCorruptError, match=r"the graph 'model\.ort' is no \.onnx file"):
        edgellm.load(package)


def test_a_tokenizer_that_multiplies_text(package: Path) -> None:
    data = json.loads((package / "tokenizer.json").read_bytes())
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    data["normalizer"] = {"type": "Sequence", "normalizers": [step] * 40}
    (package / "tokenizer.json").write_text(json.dumps(data))
    with_hashes(package)
    with pytest.raises(PackageCorruptError, match="normalizer makes up to 4097 characters of one"):
        edgellm.load(package)


@pytest.mark.parametrize("key", ["precompiled_charsmap", r"precompiled\u005fcharsmap", r"\u0070recompiled_charsmap"])
def test_a_tokenizer_whose_table_claims_gigabytes(package: Path, key: str) -> None:
    """Its library would end the process."""
    table = base64.b64encode((0xFFFFFFF0).to_bytes(4, "little") + bytes(64)).decode()
    data = json.loads((package / "tokenizer.json").read_bytes())
    data["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": table}
    text = json.dumps(data).replace("precompiled_charsmap", key)
    (package / "tokenizer.json").write_text(text)
    with_hashes(package)
    with pytest.raises(PackageCorruptError, match="its precompiled_charsmap is cut off"):
        edgellm.load(package)


def test_a_tokenizer_that_panics(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A regular expression that backtracks without end is given up by its library, which panics."""
    data = json.loads((package / "tokenizer.json").read_bytes())
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, data["pre_tokenizer"]]}
    (package / "tokenizer.json").write_text(json.dumps(data))
    with_hashes(package)
    model = edgellm.load(package)
    with pytest.raises(PackageCorruptError, match=r"tokenizer\.json fails at this text: .*retry-limit"):
        model.generate("x" * 60)
    assert model.generate("Hi", max_new_tokens=2).tokens


def test_messages_do_not_steer_a_terminal(package: Path) -> None:
    edited = json.loads((package / "edgellm.json").read_bytes())
    edited["\x1b]0;title\x07\x1b[2J\ud800"] = 1
    (package / "edgellm.json").write_text(json.dumps(edited))
    with pytest.raises(PackageCorruptError) as caught:
        edgellm.load(package)
    assert r"\x1b]0;title\x07\x1b[2J\ud800" in str(caught.value)
    assert str(caught.value).isprintable()
