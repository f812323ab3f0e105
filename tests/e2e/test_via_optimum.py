"""Optimum's graphs of models that generate, as they are and as packages of ours, whoever else builds the family."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import edgellm
import edgellm_export
from comparison import hf_generate, reference_logits, relative
from edgellm.cli import cli
from edgellm.errors import (
    CheckpointError,
    ExportError,
    MissingDependencyError,
    QualityGateError,
    UnsupportedModelError,
)
from edgellm_export.optimum import export as optimum_export
from edgellm_export.optimum.conversion import export_graphs, task_of
from optimum_models import CONTEXT, DECODERS, VOCAB, make_model, save_checkpoint

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude
LENGTHS = (5, 23, 23, 11)


@pytest.fixture(scope="session")
def original() -> Callable[[str], Any]:
    return cache(make_model)


@pytest.fixture(scope="session")
def checkpoint(original: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: save_checkpoint(original(name), tmp_path_factory.mktemp("checkpoint") / name))


@pytest.fixture(scope="session")
def directory(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What optimum itself writes."""

    @cache
    def make(name: str) -> Path:
        path = tmp_path_factory.mktemp("optimum") / name
        export_graphs(checkpoint(name), path, "text-generation")
        return path

    return make


@pytest.fixture(scope="session")
def package(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A verified export of ours, by name and precision."""
    root = tmp_path_factory.mktemp("packages")

    @cache
    def make(name: str, precision: str) -> Any:
        return edgellm_export.export(checkpoint(name), root / f"{name}-{precision}", precision=precision, via="optimum")

    return make


@pytest.fixture(scope="session")
def load(directory: Callable[[str], Path], package: Callable[..., Any]) -> Callable[..., edgellm.Model]:
    """By name, and whether the directory as it is or a precision of ours."""

    @cache
    def open_model(name: str, made: str) -> edgellm.Model:
        path = directory(name) if made == "as it is" else package(name, made).path
        return edgellm.load(path, threads=1, prefill_chunk=9)

    return open_model


def prompts(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, length) for length in LENGTHS]


EACH = pytest.mark.parametrize("name", DECODERS)
MADE = pytest.mark.parametrize("made", ["as it is", "fp32"])


@EACH
@MADE
def test_logits(name: str, made: str, original: Callable[[str], Any], load: Callable[..., edgellm.Model]) -> None:
    for ids in prompts():
        assert relative(load(name, made).logits(ids), reference_logits(original(name), ids)) < LOGITS_TOLERANCE


@EACH
@MADE
@pytest.mark.parametrize("beams", [1, 4])
def test_tokens_of_batches(
    name: str, made: str, beams: int, original: Callable[[str], Any], load: Callable[..., edgellm.Model]
) -> None:
    """Rows of different lengths, in one batch: each gets what transformers gives it alone."""
    options = {"num_beams": beams, "max_new_tokens": 20, "do_sample": False}
    for got, ids in zip(load(name, made).generate(prompts(), **options), prompts(), strict=True):
        assert got.tokens == hf_generate(original(name), ids, **options).tokens[0]


@EACH
@pytest.mark.parametrize("made", ["fp32", "int8"])
def test_a_prompt_gets_the_same_in_any_batch(name: str, made: str, load: Callable[..., edgellm.Model]) -> None:
    """int8 rounds activations: the last bits of float32 may become a rounding step."""
    model = load(name, made)
    together = model.generate(prompts(), max_new_tokens=12, logprobs=True)
    for got, ids in zip(together, prompts(), strict=True):
        alone = model.generate(ids, max_new_tokens=12, logprobs=True)
        assert got.tokens == alone.tokens
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-4 if made == "fp32" else 0.05)


@EACH
def test_chunks_do_not_change_the_logits(name: str, package: Callable[..., Any], load: Callable[..., Any]) -> None:
    whole = edgellm.load(package(name, "fp32").path, threads=1, prefill_chunk=CONTEXT)
    assert relative(load(name, "fp32").logits(prompts()[1]), whole.logits(prompts()[1])) < LOGITS_TOLERANCE


def test_streams_and_prompt_lookup(load: Callable[..., edgellm.Model]) -> None:
    model, ids = load("gpt_neox", "fp32"), np.tile([5, 6, 7, 8], 5)
    expected = model.generate(ids, max_new_tokens=24).tokens
    assert [token for piece in model.stream(ids, max_new_tokens=24) for token in piece.tokens] == [*expected]
    assert model.generate(ids, max_new_tokens=24, prompt_lookup=True).tokens == expected


@EACH
def test_reports(name: str, package: Callable[..., Any]) -> None:
    """Beside the checkpoint in torch: each passes its gate, and int8 with room to spare."""
    divergence = {p: package(name, p).report.quality.kl_divergence for p in ("fp32", "fp16", "int8", "int4")}
    assert divergence["fp32"] < 1e-9
    assert divergence["fp16"] < 1e-4
    assert divergence["int8"] < 5e-3
    assert divergence["int8"] < divergence["int4"]
    size = {p: package(name, p).report.size_bytes for p in divergence}
    # Of such small matrices, int4's zero points, each on a page, may take what its weights save.
    assert size["int4"] < 1.01 * size["int8"] < size["fp32"]


@EACH
def test_all_matrices_are_integers(name: str, package: Callable[..., Any]) -> None:
    """What is left in float32 is small: norms, biases, positions."""
    graph = ir.load(package(name, "int8").path / "model.onnx").graph
    left = [v for v in graph.initializers.values() if v.dtype == ir.DataType.FLOAT and len(v.shape) == 2 and v.uses()]
    read_by = {(user.op_type, index) for value in left for user, index in value.uses()}
    assert read_by <= {("Gather", 0), ("GatherBlockQuantized", 2), ("MatMulNBits", 2)}
    assert not any(v.shape[0] == VOCAB and {u.op_type for u, _ in v.uses()} == {"Gather"} for v in left)


def test_the_package_is_one_of_ours(package: Callable[..., Any], checkpoint: Callable[[str], Path]) -> None:
    path = package("opt", "int8").path
    manifest = json.loads((path / "edgellm.json").read_text())
    assert manifest["cache"]["growth"] == "concat"
    assert {"optimum-onnx", "torch", "transformers"} <= manifest["versions"].keys()
    assert {p.name for p in path.iterdir()} == {"edgellm.json", *manifest["files"]}
    assert {"tokenizer.json", "config.json", "generation_config.json", "report.json"} <= manifest["files"].keys()
    shown = CliRunner().invoke(cli, ["inspect", str(path), "--verify"])
    assert shown.exit_code == 0
    assert "opt, text-generation" in shown.output
    edgellm.load(path, verify=True).generate("Hello", max_new_tokens=3)


def test_the_command(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = ["export", str(checkpoint("bloom")), str(tmp_path / "out"), "--via", "optimum", "--json"]
        result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["report"]["verdict"] == "passed"


@pytest.mark.parametrize("name", ["opt", "gpt_neox"])
def test_graphs_that_are_there_already(
    name: str,
    directory: Callable[[str], Path],
    package: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They need no optimum, and give the package that their checkpoint gives."""
    source, by_checkpoint = directory(name), package(name, "int8").path
    for module in ("optimum.exporters.onnx", "torch", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    exported = edgellm_export.export(source, tmp_path / "out", precision="int8", via="optimum")
    assert 0 < exported.report.quality.kl_divergence < 5e-3
    found, expected = (edgellm.load(p, threads=1).logits(prompts()[1]) for p in (exported.path, by_checkpoint))
    assert np.array_equal(found, expected)
    with pytest.raises(CheckpointError, match="already"):
        edgellm_export.export(exported.path, tmp_path / "again", via="optimum")
    (exported.path / "edgellm.json").unlink()
    with pytest.raises(ExportError, match="give graphs in float32"):
        edgellm_export.export(exported.path, tmp_path / "again", via="optimum")


def test_a_damaged_graph_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(model: Any, path: Path) -> None:
        value = next(v for n, v in model.graph.initializers.items() if "MatMul" in n)
        value.const_value = ir.tensor(-value.const_value.numpy(), name=value.name)
        save(model, path)

    save = optimum_export.save
    monkeypatch.setattr(optimum_export, "save", damage)
    with pytest.raises(QualityGateError):
        edgellm_export.export(checkpoint("gpt_neox"), tmp_path / "out", precision="fp32", via="optimum")
    assert not (tmp_path / "out").exists()


def test_without_the_extra(checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install edgellm\[export,optimum\]"):
        edgellm_export.export(checkpoint("opt"), tmp_path / "out", via="optimum")
    result = CliRunner().invoke(cli, ["export", str(checkpoint("opt")), str(tmp_path / "out"), "--via", "optimum"])
    assert result.exit_code == 8
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "cuda"}, ExportError, "for the CPU"),
        ({"kv_cache": "int8"}, ExportError, "float key/value cache"),
        ({"calibration": __file__}, ExportError, "leave out --calibration"),
        ({"task": "token-classification"}, UnsupportedModelError, "token-classification"),
    ],
)
def test_choices_that_these_graphs_do_not_have(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        edgellm_export.export(checkpoint("opt"), tmp_path / "out", via="optimum", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("XLMWithLMHeadModel", "fill-mask"),
        ("FlaubertWithLMHeadModel", "fill-mask"),
        ("T5WithLMHeadModel", "text2text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
    ],
)
def test_what_a_class_is_for(name: str, task: str) -> None:
    assert task_of({"architectures": [name]}) == task


def test_checkpoints_that_optimum_does_not_export(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in checkpoint("opt").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    for change, message in (
        ({"architectures": None}, "architectures is None"),
        ({"model_type": "unheard-of"}, "optimum does not export"),
        ({"model_type": "longformer"}, "optimum's graph of it holds for one length"),
        ({"model_type": "deepseek_v3"}, "keys and values of different sizes"),
        ({"hidden_size": 50}, "optimum does not export"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UnsupportedModelError, match=message) as raised:
            edgellm_export.export(source, tmp_path / "out", via="optimum")
        assert "\n" not in str(raised.value)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is damaged or not a PyTorch file"):
        edgellm_export.export(source, tmp_path / "out", via="optimum")


def test_pytorch_files_go_through_optimum_too(
    checkpoint: Callable[[str], Path], package: Callable[..., Any], tmp_path: Path
) -> None:
    """The same weights as from SafeTensors."""
    source = shutil.copytree(checkpoint("opt"), tmp_path / "source")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    made = edgellm_export.export(source, tmp_path / "out", precision="fp32", via="optimum")
    name = "model.onnx.data"
    assert (made.path / name).read_bytes() == (package("opt", "fp32").path / name).read_bytes()
