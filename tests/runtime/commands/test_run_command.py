"""edgellm run in this process, and what it prints of each task's results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgellm
from edgellm.cli import cli
from edgellm.commands.run import inputs_of, lines_of

GREEDY = ("--no-do-sample", "--max-new-tokens", 8, "--threads", 1)


def run(*arguments: str | Path | int, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["run", *map(str, arguments)], input=stdin)


def test_prints_what_the_pipeline_returns(package: Path, model: edgellm.Model) -> None:
    expected = edgellm.pipeline("text-generation", model, do_sample=False, max_new_tokens=8)("Hello")
    result = run("text-generation", package, "Hello", *GREEDY)
    assert (result.exit_code, result.stdout, result.stderr) == (0, expected[0]["generated_text"] + "\n", "")
    result = run("text-generation", package, "Hello", *GREEDY, "--json")
    assert json.loads(result.stdout) == expected


def test_reads_lines(package: Path, model: edgellm.Model) -> None:
    pipe = edgellm.pipeline("text-generation", model, do_sample=False, max_new_tokens=8, return_full_text=False)
    result = run(
        "text-generation", package, "-", *GREEDY, "--json", "--no-return-full-text", stdin="né\nb\r\nc".encode()
    )
    assert [json.loads(line) for line in result.stdout.splitlines()] == [pipe(text) for text in ("né", "b", "c")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-task", "PKG", "a"], "there is no task 'no-such-task'"),
        (["fill-mask", "PKG", "a"], r"a package for text-generation, and fill-mask needs one for fill-mask"),
        (["ner", "PKG", "a"], "this package can do text-generation, text-ranking$"),
        (["text-generation", "PKG", "a", "--stride", "3"], "unknown option 'stride'"),
        (["text-generation", "PKG", "a", "--num-beams", "0"], "num_beams is 0"),
        (["text-generation", "PKG", "-", "--context", "-"], "only one of TEXT and --context"),
        (["text-generation", "PKG", "-"], "standard input is not UTF-8"),
        (["text-generation", "PKG"], "Missing argument 'TEXT...'"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, package: Path) -> None:
    result = run(*(str(package) if a == "PKG" else a for a in arguments), stdin=b"caf\xe9\n")
    assert result.exit_code in (2, 3)
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("result", "given", "lines"),
    [
        ([{"generated_text": "a b"}], "a", ["a b"]),
        ([{"summary_text": "a"}, {"summary_text": "b"}], "a", ["a", "b"]),
        ([{"label": "good", "score": 0.98765}], "a", ["good\t0.9877"]),
        ({"score": 0.5, "start": 3, "end": 5, "answer": "hi"}, {"question": "a"}, ["0.5000\t3\t5\thi"]),
        ([[{"token": 1}], [{"token": 2}, {"token": 3}]], "a", ["1", "", "2", "3"]),
        ([[[0.5, 1.0], [2.0, 3.0]]], "a", ["0.5000\t1.0000", "2.0000\t3.0000"]),
        ({"sequence": "s", "labels": ["a", "b"], "scores": [0.75, 0.25]}, "s", ["0.7500\ta", "0.2500\tb"]),
        ([0.5, -0.5], {"source_sentence": "s", "sentences": ["a", "b"]}, ["0.5000\ta", "-0.5000\tb"]),
        ([], "a", []),
    ],
    ids=lambda value: str(value)[:30],
)
def test_results_as_lines(result: Any, given: Any, lines: list[str]) -> None:
    assert list(lines_of(result, given)) == lines


def test_inputs() -> None:
    assert list(inputs_of(["a", "b"], context=None, text_pair=None, together=False)) == ["a", "b"]
    [pair] = inputs_of(["a"], context=None, text_pair="b", together=False)
    assert pair == {"text": "a", "text_pair": "b"}
    [asked] = inputs_of(["q"], context="c", text_pair=None, together=False)
    assert asked == {"question": "q", "context": "c"}
    [compared] = inputs_of(["a", "b", "c"], context=None, text_pair=None, together=True)
    assert compared == {"source_sentence": "a", "sentences": ["b", "c"]}
