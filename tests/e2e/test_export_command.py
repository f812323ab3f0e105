"""`edgellm export` as its users run it: output, errors, and what an interruption leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from click.testing import CliRunner, Result

import edgellm
from edgellm.cli import cli
from edgellm.commands.export import STEPS as STEP_NAMES
from edgellm.commands.progress import Lines
from edgellm.package.files import check_files, read_manifest
from edgellm_export.onnx import writer
from families import SIZES, Family, make_model, save_checkpoint

Checkpoints = Callable[[str], Path]
STEPS = tuple(step for name, step in STEP_NAMES.items() if name != "optimum")  # a step of --via optimum alone
MIXING = STEP_NAMES["mix"]  # of mixed precision alone
BY_SIGNAL = pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_export(checkpoint: Checkpoints, tmp_path: Path) -> None:
    out = tmp_path / "package"
    result = run(checkpoint("llama"), out, "--kv-cache", "int8")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "exported", "package", "divergence", "agreement", "perplexity", "verdict", "predicted",
    ]  # fmt: skip
    assert result.stderr.splitlines()[-1] == "comparing: 100%"
    assert all((f"{step}: 100%\n" in result.stderr) == (step != MIXING) for step in STEPS)
    assert edgellm.load(out).generate("Hi", max_new_tokens=3).tokens
    assert os.listdir(tmp_path) == ["package"]
    shown = CliRunner().invoke(cli, ["inspect", str(out), "--report"]).stdout.splitlines()
    assert shown == lines[1:-1]


def test_export_json_and_no_verify(checkpoint: Checkpoints, tmp_path: Path) -> None:
    verified = json.loads(run(checkpoint("llama"), tmp_path / "a", "--precision", "fp16", "--json").stdout)
    assert verified["package"] == str(tmp_path / "a")
    assert verified["report"]["verdict"] == "passed"
    result = run(checkpoint("llama"), tmp_path / "b", "--precision", "fp16", "--no-verify", "--json")
    found = json.loads(result.stdout)
    assert found.pop("plan")["size_bytes"]["actual"] > 0
    assert found == {"package": str(tmp_path / "b"), "report": None, "findings": None}
    assert "running" not in result.stderr


def test_a_package_is_replaced_only_by_force(checkpoint: Checkpoints, tmp_path: Path) -> None:
    out = tmp_path / "package"
    assert run(checkpoint("llama"), out, "--precision", "fp32", "--no-verify").exit_code == 0
    refused = run(checkpoint("qwen2"), out, "--precision", "fp32", "--no-verify")
    assert (refused.exit_code, refused.stdout) == (5, "")
    assert "exists already; choose another path, or replace it with --force" in refused.stderr
    assert read_manifest(out).model_type == "llama"
    assert run(checkpoint("qwen2"), out, "--precision", "fp32", "--no-verify", "--force").exit_code == 0
    assert read_manifest(out).model_type == "qwen2"
    assert os.listdir(tmp_path) == ["package"]


def _edit_config(directory: Path, **changes: Any) -> Path:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **changes}))
    return directory


@pytest.fixture
def llama_copy(checkpoint: Checkpoints, tmp_path: Path) -> Path:
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for file in checkpoint("llama").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def _no_source(copy: Path) -> list[str]:
    return [str(copy / "nowhere")]


def _unknown_architecture(copy: Path) -> list[str]:
    return [str(_edit_config(copy, model_type="lama"))]


def _other_tensors(copy: Path) -> list[str]:
    return [str(_edit_config(copy, num_hidden_layers=4, attention_bias=True))]


def _weights_cut_short(copy: Path) -> list[str]:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return [str(copy)]


def _fp32_for_cuda(copy: Path) -> list[str]:
    return [str(copy), "--target", "cuda", "--precision", "fp32"]


def _revision_of_a_directory(copy: Path) -> list[str]:
    return [str(copy), "--revision", "main"]


FAILURES = [
    (_no_source, 4, "no checkpoint at"),
    (_unknown_architecture, 4, "did you mean 'llama'"),
    (_other_tensors, 4, "missing ("),
    (_weights_cut_short, 4, "model.safetensors"),
    (_fp32_for_cuda, 5, "--precision fp16"),
    (_revision_of_a_directory, 4, "no revision 'main'"),
]


@pytest.mark.parametrize(
    ("arrange", "exit_code", "message"), FAILURES, ids=lambda value: getattr(value, "__name__", "")
)
def test_failures_are_one_line_and_leave_nothing(
    llama_copy: Path, tmp_path: Path, arrange: Callable[[Path], list[str]], exit_code: int, message: str
) -> None:
    source, *options = arrange(llama_copy)
    result = run(source, tmp_path / "out" / "package", *options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not any((tmp_path / "out").glob("**/*"))


def test_a_full_disk(checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "package"
    run(checkpoint("llama"), out, "--precision", "fp32", "--no-verify")
    monkeypatch.setattr(writer, "_write_data", full)
    result = run(checkpoint("qwen2"), out, "--force", "--no-verify")
    assert result.exit_code == 5
    assert "is full" in result.stderr
    assert os.listdir(tmp_path) == ["package"]
    check_files(out, read_manifest(out))


def test_the_exporter_is_an_extra(checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edgellm_export", None)
    result = run(checkpoint("llama"), tmp_path / "package")
    assert result.exit_code == 8
    assert "run `pip install edgellm[export,cpu]`" in result.stderr
    assert not os.listdir(tmp_path)


@pytest.mark.usefixtures("installed_signals")
@BY_SIGNAL
@pytest.mark.parametrize("moment", STEPS)
def test_a_signal_in_any_step_leaves_nothing(
    checkpoint: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    number: signal.Signals,
    exit_code: int,
) -> None:
    def show(lines: object, step: str, done: int, total: int) -> None:
        if STEP_NAMES[step] == moment:
            signal.raise_signal(number)

    monkeypatch.setattr(Lines, "__call__", show)
    mixed = ("--precision", "mixed", "--max-divergence", "9") if moment == MIXING else ()
    result = run(checkpoint("llama"), tmp_path / "package", "--kv-cache", "int8", *mixed)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert not os.listdir(tmp_path)


@pytest.fixture(scope="module")
def wide(shared: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """Eight layers as wide as SmolLM2's: calibration takes about a second for each."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 8}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    family = Family("wide", lambda: hf.LlamaConfig(**{**SIZES, **sizes, **heads, **tokens}))
    return shared("checkpoints/wide", lambda path: save_checkpoint(make_model(family), path))


@BY_SIGNAL
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_a_signal_while_it_calibrates(
    wide: Path, tmp_path: Path, delay_s: float, number: signal.Signals, exit_code: int
) -> None:
    with exporting(wide, tmp_path / "package") as child:
        stop(child, "calibrating", delay_s, number, exit_code)
    assert not os.listdir(tmp_path)


@pytest.mark.real_model
@BY_SIGNAL
def test_a_signal_while_it_writes(smollm2_gguf: Path, tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    with exporting(smollm2_gguf, tmp_path / "package", "--no-calibration") as child:
        stop(child, "writing weights", 0, number, exit_code)
    assert not os.listdir(tmp_path)


def exporting(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgellm", "export", *map(str, arguments), "--no-verify"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def stop(child: subprocess.Popen[str], step: str, delay_s: float, number: signal.Signals, exit_code: int) -> None:
    """By a signal from outside, some time behind a quarter of a step."""
    assert child.stderr is not None
    assert f"{step}: 25%\n" in iter(child.stderr.readline, "")
    time.sleep(delay_s)
    child.send_signal(number)
    assert child.wait(timeout=60) == exit_code
    assert "Traceback" not in child.stderr.read()
