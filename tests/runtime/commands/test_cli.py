"""The command line in this process: arguments in, output and exit code out."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgellm
from edgellm.cli import cli
from edgellm.commands import signals
from edgellm.commands.options import chosen, one_line

REPORT = {
    "precision": "int8",
    "scheme": "blockwise-32",
    "size_bytes": 3 * 2**20,
    "quality": {
        "tokens": 1024,
        "text": "English text",
        "kl_divergence": 0.00459,
        "kl_divergence_max": 0.03,
        "top1_agreement": 0.96875,
        "perplexity_original": 16.939,
        "perplexity_package": 16.954,
        "greedy_tokens": 128,
        "greedy_agreement": 0.77,
    },
    "worst_layers": [{"layer": 18, "error": 0.029}],
    "thresholds": {"kl_divergence": 0.02, "top1_agreement": 0.9},
    "verdict": "passed",
}


def run(*arguments: str | Path, stdin: bytes | None = None, **extra: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), input=stdin, **extra)


def test_generate_prints_what_generate_returns(package: Path, model: edgellm.Model) -> None:
    result = run("generate", package, "Hello", "--max-new-tokens", 8, "--threads", 1)
    assert result.exit_code == 0
    assert result.stdout == model.generate("Hello", max_new_tokens=8).text + "\n"
    assert result.stderr == ""


def test_generate_passes_options_on(package: Path, model: edgellm.Model) -> None:
    options = {"max_new_tokens": 9, "do_sample": True, "temperature": 0.7, "seed": 3, "stop_strings": ["e", "q"]}
    result = run(
        "generate", package, "Hello", "--max-new-tokens", 9, "--do-sample", "--temperature", 0.7, "--seed", 3,
        "--stop-strings", "e", "--stop-strings", "q",
    )  # fmt: skip
    assert result.stdout == model.generate("Hello", **options).text + "\n"


@pytest.mark.parametrize("sequences", [1, 3])
def test_generate_with_beams_prints_each_sequence(package: Path, model: edgellm.Model, sequences: int) -> None:
    options = {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": sequences, "early_stopping": True}
    texts = [s.text for s in model.generate("Hi", **options).sequences]
    arguments = [f for name, value in options.items() for f in (f"--{name.replace('_', '-')}", str(value).lower())]
    result = run("generate", package, "Hi", *arguments)
    expected = texts if sequences == 1 else [f"[{i}] {text}" for i, text in enumerate(texts, 1)]
    assert result.stdout == "\n".join(expected) + "\n"


def test_generate_json(package: Path, model: edgellm.Model) -> None:
    result = run("generate", package, "Hello", "--max-new-tokens", 8, "--json")
    data, expected = json.loads(result.stdout), model.generate("Hello", max_new_tokens=8)
    assert data["text"] == expected.text
    assert data["sequences"][0]["tokens"] == list(expected.tokens)
    assert data["finish_reason"] == expected.finish_reason
    assert (data["prompt_tokens"], data["new_tokens"]) == (5, len(expected.tokens))
    assert (data["drafted_tokens"], data["accepted_tokens"]) == (0, 0)
    assert 0 < data["time_to_first_token_s"] <= data["total_s"]


def test_generate_reads_standard_input(package: Path, model: edgellm.Model) -> None:
    result = run("generate", package, "-", "--max-new-tokens", 4, stdin="Grüße\n".encode())
    assert result.stdout == model.generate("Grüße", max_new_tokens=4).text + "\n"


def test_stats_go_to_stderr(package: Path) -> None:
    result = run("generate", package, "Hello", "--max-new-tokens", 8, "--stats")
    assert result.stderr.startswith("load ")
    for part in ("first token after", "8 tokens,", "tokens/s", "peak memory"):
        assert part in result.stderr


def test_overflow_on_the_command_line(package: Path, model: edgellm.Model) -> None:
    text = "abc" * 50
    assert run("generate", package, text).exit_code == 2
    for overflow in ("truncate", "shift"):
        options = ["--max-new-tokens", 40, "--overflow", overflow, "--overflow-keep", 3]
        expected = model.generate(text, max_new_tokens=40, overflow=overflow, overflow_keep=3)
        assert run("generate", package, text, *options).stdout == expected.text + "\n"
        found = json.loads(run("generate", package, text, *options, "--json").stdout)
        assert found["dropped_tokens"] == expected.dropped_tokens > 0
    result = run("chat", package, "--overflow", "truncate", "--max-new-tokens", 4, stdin=b"Hello there\n" * 5)
    assert result.exit_code == 0
    assert "the context is full: " in result.stderr


def test_inspect(package: Path) -> None:
    text = run("inspect", package).stdout
    for part in ("tiny, text-generation", "float32", "96 tokens, vocabulary 264", "model.onnx.data", "not compared"):
        assert part in text
    assert "all as exported" in run("inspect", package, "--verify").stdout
    data = json.loads(run("inspect", package, "--json").stdout)
    assert edgellm.package.manifest.Manifest.from_dict(data["manifest"]) == edgellm.package.files.read_manifest(package)
    assert data["report"] is None


def test_inspect_shows_the_quality_report_in_five_lines(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "copy")
    (copy / "report.json").write_text(json.dumps(REPORT))
    assert run("inspect", copy, "--report").stdout.splitlines() == [
        "package      3 MiB, int8 (blockwise-32)",
        "divergence   0.00459 nats per token from the original (limit 0.02), 1024 tokens of English text",
        "agreement    top-1 96.88% (limit 90%), greedy 77% of 128 tokens",
        "perplexity   16.954, original 16.939",
        "verdict      passed; least faithful layers: 18 (2.90%)",
    ]
    assert json.loads(run("inspect", copy, "--report", "--json").stdout) == {"report": REPORT}


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "no command": (["fly"], 2, "No such command 'fly'; see `edgellm --help`"),
    "no argument": (["generate"], 2, "Missing argument 'PKG'; see `edgellm generate --help`"),
    "wrong choice": (["generate", "PKG", "Hi", "--device", "tpu"], 2, "'tpu' is not one of"),
    "no package": (["generate", "nowhere", "Hi"], 3, "no package directory at nowhere"),
    "no package to inspect": (["inspect", "nowhere"], 3, "no package directory at nowhere"),
    "no package to bench": (["bench", "nowhere"], 3, "no package directory at nowhere"),
    "no package to chat": (["chat", "nowhere", "Hi"], 3, "no package directory at nowhere"),
    "option out of range": (["generate", "PKG", "Hi", "--top-p", "2", "--do-sample"], 2, "top_p is 2.0, expected"),
    "two wrong options": (["generate", "PKG", "Hi", "--top-p", "2", "--num-beams", "0"], 2, "num_beams is 0"),
    "option without effect": (["generate", "PKG", "Hi", "--seed", "1", "--top-k", "3"], 2, "without do_sample"),
    "beams in a chat": (["chat", "PKG", "Hi", "--num-beams", "2"], 2, "cannot be streamed"),
    "no threads": (["generate", "PKG", "Hi", "--threads", "0"], 2, "threads is 0, expected a whole number from 1"),
    "too long a prompt": (["generate", "PKG", "x" * 97], 2, "the prompt has 97 tokens"),
    "no room": (["generate", "PKG", "x" * 96], 2, "no room for a new token"),
    "too much to bench": (["bench", "PKG", "--prompt-tokens", "90"], 2, "do not fit in the model's context of 96"),
    "prompt not UTF-8": (["generate", "PKG", "a\udce9"], 2, "lone surrogate"),
    "CUDA for a CPU package": (["generate", "PKG", "Hi", "--device", "cuda"], 7, "exported for the CPU"),
}


@pytest.mark.parametrize(("arguments", "exit_code", "message"), FAILURES.values(), ids=FAILURES)
def test_errors_are_one_line(package: Path, arguments: list[str], exit_code: int, message: str) -> None:
    result = run(*[package if argument == "PKG" else argument for argument in arguments])
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_input_that_is_not_utf8(package: Path, command: str) -> None:
    result = run(command, package, "-", stdin=b"caf\xe9")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: standard input is not UTF-8: byte 0xE9 at position 3; convert it")


def test_a_changed_file_is_found(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "copy")
    with (copy / "model.onnx.data").open("r+b") as file:
        file.write(b"\xff")
    result = run("inspect", copy, "--verify")
    assert result.exit_code == 3
    assert "was changed after the export" in result.stderr


def test_a_broken_report_is_an_error(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "copy")
    (copy / "report.json").write_text('{"quality": 3}')
    result = run("inspect", copy)
    assert result.exit_code == 3
    assert "report.json cannot be read" in result.stderr


def _fail(*arguments: Any, **options: Any) -> None:
    raise RuntimeError("two\nlines")


def test_unexpected_errors_ask_for_a_report(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgellm.commands.generate.load_as", _fail)
    result = run("generate", package, "Hi")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected RuntimeError: two; lines; please report it")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("arguments", "environment"), [(["--debug"], {}), ([], {"EDGELLM_DEBUG": "1"})])
def test_debug_keeps_the_traceback(
    package: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str]
) -> None:
    monkeypatch.setattr("edgellm.commands.generate.load_as", _fail)
    result = run(*arguments, "generate", package, "Hi", env=environment)
    assert isinstance(result.exception, RuntimeError)
    known = run(*arguments, "generate", "nowhere", "Hi", env=environment)
    assert isinstance(known.exception, RuntimeError)


def test_ctrl_c_leaves_with_130(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgellm.commands.generate.load_as", interrupt)
    result = run("generate", package, "Hi")
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


def test_a_signal_that_a_library_turned_into_an_error(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", [signal.SIGTERM])
    monkeypatch.setattr("edgellm.commands.generate.load_as", _fail)
    result = run("generate", package, "Hi")
    assert (result.exit_code, result.stderr) == (143, "")


def test_a_broken_pipe_is_quiet(package: Path) -> None:
    command = [sys.executable, "-m", "edgellm", "generate", str(package), "Hi", "--threads", "1"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    child.wait(timeout=30)


def test_version_and_help() -> None:
    assert run("--version").stdout == f"edgellm {edgellm.__version__}\n"
    assert run().stdout.startswith("Usage: edgellm [OPTIONS] COMMAND")
    assert run("generate", "-h").exit_code == 0


def test_generation_options_are_those_of_the_library() -> None:
    """All but those that name token ids, and log-probabilities, which only Python returns."""
    other = {"package", "prompt", "device", "threads", "kv_cache", "stats", "as_json"}
    names = {parameter.name for parameter in cli.commands["generate"].params} - other
    left_to_python = set(edgellm.GenerationOptions.__dataclass_fields__) - names
    assert names < set(edgellm.GenerationOptions.__dataclass_fields__)
    assert left_to_python == {
        "eos_token_id", "pad_token_id", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
        "suppress_tokens", "begin_suppress_tokens", "logit_bias", "reasoning_markers", "logprobs", "top_logprobs",
        "stop",
    }  # fmt: skip


def test_chosen_are_the_options_that_were_given() -> None:
    assert chosen({"early_stopping": "never", "seed": None, "stop_strings": ()}) == {"early_stopping": "never"}
    assert chosen({"early_stopping": "false", "do_sample": False}) == {"early_stopping": False, "do_sample": False}


def test_one_line() -> None:
    assert one_line("invalid options:\n  a is 1\n  b is 2") == "invalid options: a is 1; b is 2"
    assert one_line("plain") == "plain"
    assert one_line("tensors\n  missing (1):\n    x [2]\ncheck") == "tensors; missing (1): x [2]; check"
