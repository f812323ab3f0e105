"""`edgellm inspect` and `edgellm diff` on packages of every kind of model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgellm_export
import encoder_decoder_families
import encoder_families
import families
from concat_directory import write_directory
from edgellm.cli import cli
from edgellm.inspection.contents import Inspection, inspect_package
from edgellm.loading import read_package
from edgellm.package.files import read_manifest, sha256_of, write_manifest
from edgellm.package.manifest import Manifest

# By kind of model, the module of its tiny checkpoints and what makes one.
KINDS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "decoder": (families, (families.BY_NAME["llama-biases-tied"],)),
    "encoder": (encoder_families, ("bert", "fill-mask")),
    "encoder-decoder": (encoder_decoder_families, (encoder_decoder_families.BY_NAME["t5"],)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    out = tmp_path_factory.mktemp("inspected")

    @cache
    def make(kind: str, precision: str = "int8") -> Path:
        checkpoint = out / f"{kind}-checkpoint"
        module, arguments = KINDS[kind]
        if not checkpoint.is_dir():
            module.save_checkpoint(module.make_model(*arguments), checkpoint)
        return edgellm_export.export(checkpoint, out / f"{kind}-{precision}", precision=precision).path  # type: ignore[arg-type]

    return make


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def inspected(path: Path) -> Inspection:
    package, manifest = read_package(path)
    return inspect_package(package, manifest, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_of_the_weights_has_a_layer(kind: str, made: Callable[..., Path]) -> None:
    path = made(kind)
    found = inspected(path)
    data = sum((path / name).stat().st_size for name in read_manifest(path).files if name.endswith(".data"))
    counted = sum(layer.bytes for layer in found.layers)
    padding = 4096 * (len(found.matrices) * 3 + 8)  # each tensor begins on a page
    assert counted <= data + 64 * 1024  # small ones lie in the graph
    assert data - counted < padding


def test_shared_weights_count_once(made: Callable[..., Path]) -> None:
    """A tied embedding for the lookup, not for the head, but for what the head adds."""
    found = {matrix.node: matrix.bytes for matrix in inspected(made("decoder")).matrices}
    assert found["/model/embed_tokens"] >= 131 * 48
    assert found["/lm_head"] < 131 * 48 // 4


def test_matrices_have_the_reports_formats_and_errors(made: Callable[..., Path]) -> None:
    path = made("decoder")
    report = json.loads((path / "report.json").read_text())
    found = {matrix.node: matrix for matrix in inspected(path).matrices}
    for matrix in report["matrices"]:
        assert found[matrix["node"]].scheme == matrix["scheme"] == f"8-bit blocks of {matrix['block_size']}"
        assert found[matrix["node"]].error == matrix["error"]
    assert [matrix["node"] for matrix in report["matrices"] if matrix["error"] is None] == ["/lm_head"]
    others = {found[node].operator for node in found.keys() - {matrix["node"] for matrix in report["matrices"]}}
    assert not others & {"MatMulNBits", "MatMul", "Gemm"}


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_prints_layers_ports_and_provenance(kind: str, made: Callable[..., Path]) -> None:
    path = made(kind)
    lines = run("inspect", path, "--matrices", "--context", 32).stdout.splitlines()
    report = json.loads((path / "report.json").read_text())
    text = "\n".join(lines)
    assert "input_ids [" in text
    assert "] int64" in text
    assert "sha256" in text
    assert "at 32 tokens" in text
    assert any("layer 0" in line and f"{report['layers'][0]['error']:.2%}" in line for line in lines)
    assert any(line.startswith("matrix ") for line in lines)
    assert text.count("layer 1") >= 1


def test_json_has_everything(made: Callable[..., Path]) -> None:
    found = json.loads(run("inspect", made("encoder-decoder"), "--json").stdout)
    assert {"encoder", "decoder"} <= found["graphs"].keys()
    assert found["graphs"]["decoder"]["optional_inputs"][0]["name"] == "logits_to_keep"
    assert {"part", "layer", "bytes", "schemes", "error"} == found["layers"][0].keys()
    assert found["memory"]["total"] > found["memory"]["weights"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_does_not_differ_from_its_copy(kind: str, made: Callable[..., Path], tmp_path: Path) -> None:
    copy = shutil.copytree(made(kind), tmp_path / "copy")
    result = run("diff", made(kind), copy)
    assert (result.exit_code, result.stdout) == (0, "no difference\n")
    assert json.loads(run("diff", made(kind), copy, "--json").stdout) == {"same": True, "differences": []}


def test_another_precision(made: Callable[..., Path]) -> None:
    result = run("diff", made("decoder"), made("decoder", "int4"))
    assert result.exit_code == 1
    assert "  weights.precision: int8 -> int4" in result.stdout
    assert "-> 4-bit blocks of 32, zero points, " in result.stdout
    assert "  quality.kl_divergence: " in result.stdout
    assert "  model.onnx.data: " in result.stdout
    found = json.loads(run("diff", made("decoder"), made("decoder", "fp32"), "--json").stdout)
    sections = {difference["section"] for difference in found["differences"]}
    assert {"manifest", "model operators", "matrix", "report", "file"} <= sections


def resealed(path: Path, **changes: Any) -> None:
    """The manifest once files of the package have changed."""
    manifest = read_manifest(path).to_dict()
    for name, entry in manifest["files"].items():
        entry |= {"size": (path / name).stat().st_size, "sha256": sha256_of(path / name)}
    write_manifest(path, Manifest.from_dict({**manifest, **changes}))


def test_small_changes_are_found(made: Callable[..., Path], tmp_path: Path) -> None:
    copy = shutil.copytree(made("decoder"), tmp_path / "copy")
    generation = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps({**generation, "temperature": 0.7}))
    resealed(copy, context_length=read_manifest(copy).context_length - 1)
    result = run("diff", made("decoder"), copy)
    assert result.exit_code == 1
    context = read_manifest(made("decoder")).context_length
    assert f"manifest\n  context_length: {context} -> {context - 1}\n" in result.stdout
    assert "generation_config.json\n  temperature: none -> 0.7\n" in result.stdout


def test_weights_of_the_same_size_differ_by_hash(made: Callable[..., Path], tmp_path: Path) -> None:
    copy = shutil.copytree(made("encoder"), tmp_path / "copy")
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[0] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    assert run("diff", made("encoder"), copy).exit_code == 3  # not what its manifest says
    resealed(copy)
    result = run("diff", made("encoder"), copy)
    assert result.exit_code == 1
    assert result.stdout.startswith("file\n  model.onnx.data: sha256 ")


def test_a_chat_template(made: Callable[..., Path], tmp_path: Path) -> None:
    one, other = (shutil.copytree(made("decoder"), tmp_path / name) for name in "ab")
    for path, text in ((one, "same\nold\n"), (other, "same\nnew\n")):
        (path / "chat_template.jinja").write_text(text)
    result = run("diff", one, other)
    assert "text\n  chat_template.jinja:\n    -old\n    +new\n" in result.stdout


def test_what_cannot_be_compared(made: Callable[..., Path], tmp_path: Path) -> None:
    assert run("diff", made("decoder"), tmp_path / "nowhere").exit_code == 3
    assert run("diff", made("decoder")).exit_code == 2


def test_the_unexpected_does_not_look_like_a_difference(made: Callable[..., Path], monkeypatch: Any) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("edgellm.commands.diff.differences", broken)
    assert run("diff", made("decoder"), made("decoder")).exit_code == 2


def test_directories_of_other_tools(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "toy")
    found = json.loads(run("inspect", path, "--json").stdout)
    assert found["written"] is None
    assert "input_ids" in [port["name"] for port in found["graphs"]["model"]["inputs"]]
    assert sum(found["graphs"]["model"]["operators"].values()) > 3
    assert found["matrices"]
    copy = shutil.copytree(path, tmp_path / "copy")
    assert run("diff", path, copy).exit_code == 0
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    result = run("diff", path, copy)
    assert result.exit_code == 1
    assert "config.json\n  initializer_range: none -> 0.5\n" in result.stdout
