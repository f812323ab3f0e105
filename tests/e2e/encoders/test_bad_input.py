"""Checkpoints, packages and inputs of encoders that are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import edgellm
import edgellm_export
from edgellm.cli import cli
from edgellm.errors import (
    CheckpointError,
    ContextOverflowError,
    EdgellmError,
    ExportError,
    InputError,
    OptionError,
    PackageCorruptError,
    TaskError,
    TensorError,
    UnsupportedModelError,
)
from edgellm.package.files import read_manifest, write_manifest
from edgellm.package.manifest import Manifest
from encoder_families import CONTEXT


def config(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = json.loads((path / "config.json").read_text()) | changes
        (path / "config.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))

    return damage


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], None], dict[str, Any], type[EdgellmError], str]] = {
    "no head": (
        "feature-extraction", config(), {"task": "text-classification"}, TensorError, "classifier.weight [2, 48]",
    ),
    "no masked LM": ("feature-extraction", config(), {"task": "fill-mask"}, TensorError, "cls.predictions.bias [131]"),
    "no answers": ("fill-mask", config(), {"task": "question-answering"}, TensorError, "qa_outputs.weight [2, 48]"),
    "a generating task": (
        "fill-mask", config(), {"task": "text-generation"}, UnsupportedModelError, "does not generate",
    ),
    "no task": ("fill-mask", config(architectures=None), {}, CheckpointError, "say it with --task"),
    "an unknown head": (
        "fill-mask", config(architectures=["BertForMultipleChoice"]), {}, UnsupportedModelError,
        "does not build the head of BertForMultipleChoice",
    ),
    "fewer labels": (
        "text-classification", config(id2label={"0": "a", "1": "b"}, label2id=None), {}, CheckpointError,
        "names 2 labels (['a', 'b']), and the checkpoint's classifier has 3 outputs",
    ),
    "labels with a gap": (
        "token-classification", config(id2label={"0": "a", "2": "b", "3": "c"}), {}, CheckpointError,
        "keys of id2label are not the numbers from 0",
    ),
    "labels that are a list": ("text-classification", config(id2label=["a"]), {}, CheckpointError, "keys of id2label"),
    "labels that are numbers": (
        "text-classification", config(id2label={"0": 1, "1": 2, "2": 3}), {}, CheckpointError, "not text",
    ),
    "another problem": (
        "text-classification", config(problem_type="ranking"), {}, UnsupportedModelError, "problem_type is 'ranking'",
    ),
    "relative positions": (
        "fill-mask", config(position_embedding_type="relative_key"), {}, UnsupportedModelError,
        "position_embedding_type is 'relative_key'",
    ),
    "a decoder": ("fill-mask", config(is_decoder=True), {}, UnsupportedModelError, "is_decoder is True"),
    "another activation": ("fill-mask", config(hidden_act="mish"), {}, UnsupportedModelError, "hidden_act is 'mish'"),
    "heads that do not divide": ("fill-mask", config(num_attention_heads=7), {}, CheckpointError, "a multiple of"),
    "another table of positions": (
        "fill-mask", config(max_position_embeddings=41), {}, TensorError, "position_embeddings.weight has shape [40",
    ),
    "for CUDA": ("fill-mask", config(), {"target": "cuda"}, ExportError, "run on the CPU only"),
    "a cache": ("fill-mask", config(), {"kv_cache": "int8"}, ExportError, "has no key/value cache"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_cannot_be_exported(name: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    task, damage, options, error, words = CHECKPOINTS[name]
    source = shutil.copytree(checkpoint("bert", task), tmp_path / "checkpoint")
    damage(source)
    with pytest.raises(error, match=re.escape(words)) as caught:
        edgellm_export.export(source, tmp_path / "package", **options)
    assert type(caught.value) is error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


INPUTS: dict[str, tuple[Callable[[Any], Any], type[EdgellmError], str]] = {
    "a text": (lambda m: m.run("Hi"), InputError, "expected a list of inputs, found str"),
    "nothing": (lambda m: m.run([]), InputError, "the list of inputs is empty"),
    "no tokens": (lambda m: m.run([[]]), InputError, "has no tokens"),
    "an unknown token": (lambda m: m.run([[5, 131]]), InputError, "token id 131, expected ids from 0 to 130"),
    "too long": (
        lambda m: m.run([[5], [5] * (CONTEXT + 1)]), ContextOverflowError,
        f"input 1 has {CONTEXT + 1} tokens, this model takes at most {CONTEXT}",
    ),
    "too long a cut": (
        lambda m: m.run([[5]], truncation="longest_first", max_length=99), OptionError, "max_length is 99, expected",
    ),
    "no embedding": (lambda m: m.embed(["a"]), TaskError, "says nothing of how to make one vector"),
    "no start": (lambda m: m.run([[5]])[0].start, TaskError, "gives no start_logits; it gives logits"),
    "a number": (lambda m: m.run([5]), InputError, "found int"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_are_refused(name: str, load: Callable[..., Any]) -> None:
    call, error, words = INPUTS[name]
    with pytest.raises(error, match=re.escape(words)) as caught:
        call(load("bert", "text-classification", "fp32"))
    assert type(caught.value) is error


@pytest.mark.parametrize("command", ["generate", "chat", "bench"])
def test_a_package_for_another_task(command: str, load: Callable[..., Any]) -> None:
    path = load("bert", "text-classification", "fp32").info.path
    arguments = [command, str(path), *([] if command == "bench" else ["Hi"])]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 3
    assert "is a package for text-classification, and this needs one for text-generation" in result.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": None}, "needs encoder's facts"),
        ({"encoder": {"labels": [], "problem_type": None, "embedding": None}}, "0 labels in a package for text-class"),
        ({"encoder": {"labels": ["a", "b"], "problem_type": None, "embedding": None}}, "2 labels, 3 outputs"),
        ({"task": "text-generation"}, "needs a key/value cache"),
        ({"task": "question-answering"}, "3 labels in a package for question-answering"),
    ],
)
def test_manifests_that_do_not_fit(
    changes: dict[str, Any], words: str, load: Callable[..., Any], tmp_path: Path
) -> None:
    package = shutil.copytree(load("bert", "text-classification", "fp32").info.path, tmp_path / "package")
    manifest = read_manifest(package)
    data = {**manifest.to_dict(), **changes}
    (package / "edgellm.json").write_text(json.dumps(data))
    with pytest.raises(PackageCorruptError, match=re.escape(words)):
        edgellm.load(package)
    write_manifest(package, manifest)
    assert Manifest.from_dict(json.loads((package / "edgellm.json").read_text())) == manifest


def test_the_default_labels_are_numbered(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint("bert", "text-classification"), tmp_path / "checkpoint")
    config(id2label=None, label2id=None)(source)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32", verify_quality=False)
    assert exported.manifest.model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
