"""What `edgellm bench` makes of times: rates, tables, records, a picture."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from click.testing import CliRunner, Result

import edgellm
from edgellm.bench import Bandwidth, BenchResult, CaseResult, Conditions, Load, Loads, Repeat
from edgellm.bench.cases import Case
from edgellm.bench.formats import to_csv, to_json, to_jsonl, to_markdown
from edgellm.bench.plot import plot
from edgellm.bench.results import deviation, mean, percentile
from edgellm.cli import cli
from edgellm.errors import MissingDependencyError, OptionError

QUIET = Conditions(1.0, 0.0, 0.0, None, None, 0.1, ())


def run(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture
def made(tmp_path: Path) -> BenchResult:
    """Two cases with times made by hand: one row undisturbed, two beams of two prompts disturbed."""
    one = CaseResult(
        Case(100, 3, 1, 1, 2),
        (Repeat(0.5, (0.1, 0.1), 2.0, 0.4, 0.19), Repeat(0.25, (0.1, 0.3), 2.0, 0.4, 0.38)),
        300 << 20,
        50 << 20,
        QUIET,
    )
    steps = (Repeat(1.0, (0.2,), None, None), Repeat(1.0, (0.2,), None, None))
    noise = replace(QUIET, disturbed=("other programs used 1.00 of 2 CPUs", "the board reports throttled"))
    several = CaseResult(Case(50, 2, 2, 2, 2), steps, 400 << 20, 50 << 20, noise)
    prompt = CaseResult(Case(8, 0, 1, 1, 1), (Repeat(0.01, ()),), None, None, QUIET)
    return BenchResult(
        machine=edgellm.bench.Machine("A processor", 2, "Linux x86_64", "3.11", "1.31"),
        package=edgellm.bench.PackageFacts(
            tmp_path / "pkg", "llama", "int8", "blockwise-32", "cpu", 150 << 20, 134_515_008, 150_000_000, 1000
        ),
        cases=(one, several, prompt),
        loads=(
            Loads(2, (Load(900, 50), Load(700, 50)), (Load(400, 50), Load(500, 50, ("other programs",))), None),
            Loads(1, (), (Load(400, 50),), "this system has no posix_fadvise"),
        ),
        bandwidths=(Bandwidth(2, 20e9, 256 << 20, 32 << 20), Bandwidth(1, 10e9, 256 << 20, 32 << 20)),
        why_no_bandwidth=None,
        energy="RAPL package-0",
    )


def test_rates_bytes_and_energy(made: BenchResult) -> None:
    one, several, prompt = made.cases
    assert one.prefill_tokens_per_s == [200, 400]
    assert one.decode_tokens_per_s == pytest.approx([10, 5])
    assert one.total_tokens_per_s == pytest.approx([103 / 0.7, 103 / 0.65])
    assert one.decode_joules_per_token == pytest.approx(0.2)
    assert one.prefill_joules_per_token == pytest.approx(0.02)
    assert one.total_joules_per_token == pytest.approx(4.8 / 206)
    assert one.outside_onnxruntime == pytest.approx(1 - 0.57 / 0.6)
    assert one.step_bytes(made.package) == 150_000_000 + 101.5 * 1000
    assert one.share_of_bandwidth(made.package, made.bandwidths[0]) == pytest.approx(150_101_500 / 0.15 / 20e9)
    assert several.prefill_tokens_per_s == [100, 100]
    assert several.decode_tokens_per_s == pytest.approx([20, 20])  # a step of 0.2 s for four rows
    assert several.step_bytes(made.package) == 150_000_000 + 4 * 51 * 1000
    assert several.token_bytes(made.package) == (150_000_000 + 4 * 51 * 1000) / 4
    assert several.decode_joules_per_token is None
    assert several.outside_onnxruntime is None
    assert prompt.decode_tokens_per_s == []
    assert prompt.step_bytes(made.package) is None


def test_statistics() -> None:
    assert (mean([]), deviation([]), percentile([], 50)) == (None, None, None)
    assert (mean([1, 3]), deviation([5]), percentile([1, 2, 4], 50)) == (2, 0, 2)
    assert deviation([1, 3]) == pytest.approx(2**0.5)
    assert percentile([1, 2, 3, 4], 90) == pytest.approx(3.7)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a text, a dictionary per row."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[dict(zip(cells(b[0]), cells(line), strict=True)) for line in b[2:]] for b in blocks]


def test_markdown_has_the_table_of_llama_bench(made: BenchResult) -> None:
    speed, latency, loads = tables(to_markdown(made))
    assert list(speed[0]) == [
        "model", "size", "params", "backend", "threads", "batch", "beams", "test", "t/s", "t/s p50", "note",
    ]  # fmt: skip
    assert [row["test"] for row in speed] == [
        "pp100", "tg3 @ d100", "pp100+tg3", "pp50", "tg2 @ d50", "pp50+tg2", "pp8",
    ]  # fmt: skip
    assert speed[0]["model"] == "llama int8 blockwise-32"
    assert (speed[0]["size"], speed[0]["params"], speed[0]["backend"]) == ("150.00 MiB", "134.52 M", "CPU")
    assert (speed[0]["t/s"], speed[0]["t/s p50"]) == ("300.00 ± 141.42", "300.00")
    assert [row["note"] for row in speed] == ["", "", "", "disturbed", "disturbed", "disturbed", ""]
    assert latency[0]["first token ms"] == "375.0"
    assert (latency[0]["ms/token p50"], latency[0]["of bandwidth"], latency[0]["J/token"]) == ("100.00", "5%", "0.200")
    assert (latency[0]["outside ORT"], latency[0]["peak RSS"]) == ("5.0%", "300.00 MiB")
    assert latency[2]["ms/token p50"] == latency[2]["peak RSS"] == ""
    assert [row["cold load ms"] for row in loads] == ["800", ""]
    assert [row["warm load ms"] for row in loads] == ["450", "400"]
    assert [row["read bandwidth GB/s"] for row in loads] == ["20.0", "10.0"]


def test_markdown_says_what_disturbed_and_what_is_missing(made: BenchResult) -> None:
    text = to_markdown(made)
    for line in (
        "- no cold load: this system has no posix_fadvise",
        "- read bandwidth: fastest of 8 passes of numpy's maximum over 256 MiB; 32 MiB of last-level cache",
        "- energy: RAPL package-0",
        "- disturbed: pp50+tg2, batch 2, 2 beams, 2 threads: other programs used 1.00 of 2 CPUs; the board reports "
        "throttled",
        "- disturbed: load, 2 threads: 1 of 4 loads; other programs",
    ):
        assert line in text.splitlines()
    assert text.count("- disturbed") == 2
    without = replace(made, bandwidths=(), why_no_bandwidth="it ran on cuda", cases=made.cases[:1], loads=())
    assert "- read bandwidth: none, it ran on cuda" in to_markdown(without)
    assert "batch" not in tables(to_markdown(without))[0][0]
    assert "note" not in tables(to_markdown(without))[0][0]


def test_csv_json_and_jsonl_say_the_same(made: BenchResult) -> None:
    from_csv = list(csv.DictReader(to_csv(made).splitlines()))
    from_lines = [json.loads(line) for line in to_jsonl(made).splitlines()]
    from_json = json.loads(to_json(made))
    assert from_json["tests"] == from_lines
    assert len(from_csv) == len(from_lines) == 7
    for flat, full in zip(from_csv, from_lines, strict=True):
        assert flat.pop("disturbed") == "; ".join(full["disturbed"])
        for name, value in flat.items():
            assert value == ("" if full[name] is None else str(full[name])), name


def test_records_use_the_names_of_llama_bench(made: BenchResult) -> None:
    prompt, new, both = (json.loads(line) for line in to_jsonl(made).splitlines()[:3])
    assert [(r["test"], r["n_prompt"], r["n_gen"], r["n_depth"]) for r in (prompt, new, both)] == [
        ("pp100", 100, 0, 0), ("tg3 @ d100", 0, 3, 100), ("pp100+tg3", 100, 3, 0),
    ]  # fmt: skip
    assert (prompt["avg_ts"], prompt["samples_ts"], prompt["avg_ns"]) == (300, [200, 400], pytest.approx(375e6))
    assert (prompt["backends"], prompt["n_threads"], prompt["model_n_params"]) == ("CPU", 2, 134_515_008)
    assert (prompt["token_ms"], prompt["token_ms_p50"], prompt["read_bytes_per_token"]) == ([], None, None)
    assert new["token_ms"] == pytest.approx([100, 100, 100, 300])
    assert (new["first_token_ms_p50"], both["first_token_ms_p50"]) == (None, 375)
    assert (new["cold_load_ms"], new["warm_load_ms"], new["peak_rss_bytes"]) == (800, 450, 300 << 20)
    assert new["disturbed"] == ["load: 1 of 4 loads", "load: other programs"]


def test_the_command_prints_each_format_and_progress_to_stderr(package: Path) -> None:
    arguments = ["bench", package, "-p", "10", "-n", "5", "-r", "2", "-t", "1", "--loads", "0"]
    as_json = run(*arguments, "--json")
    data = json.loads(as_json.stdout)
    assert as_json.exit_code == 0
    assert "run 2 of 2" in as_json.stderr
    assert data["package"] == str(package)
    assert [test["test"] for test in data["tests"]] == ["pp10", "tg5 @ d10", "pp10+tg5"]
    assert len(data["tests"][1]["token_ms"]) == 8
    assert data["tests"][1]["n_threads"] == 1
    assert data["tests"][1]["outside_onnxruntime"] is None
    assert data["loads"] == []
    long = ["bench", package, "--prompt-tokens", 10, "--new-tokens", 5, "--repeats", 1, "--threads", 1, "--loads", 0]
    speed, _, _ = tables(run(*long).stdout)
    assert [row["test"] for row in speed] == ["pp10", "tg5 @ d10", "pp10+tg5"]
    assert len(list(csv.DictReader(run(*long, "-o", "csv").stdout.splitlines()))) == 3


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["-p", "8-4"], 2, "--prompt-tokens is '8-4': the range 8-4 goes down"),
        (["-b", "0"], 2, "--batch-size is '0': 0 is below 1"),
        (["-t", "two"], 2, "--threads is 'two': expected numbers"),
        (["-p", "64,90"], 2, "90 prompt tokens and 64 new ones do not fit in the model's context of 96"),
        (["--plot", "picture.gif"], 2, "expected a name that ends in .png or .svg"),
        (["--plot", "nowhere/picture.png"], 2, "there is no directory nowhere"),
        (["--plot", "picture.png", "-n", "0"], 2, "no new tokens to time"),
        (["-o", "xml"], 2, "'xml' is not one of"),
    ],
)
def test_wrong_options_are_one_line(package: Path, arguments: list[str], exit_code: int, message: str) -> None:
    result = run("bench", package, *arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot(made: BenchResult, tmp_path: Path, suffix: str, start: bytes) -> None:
    plot(made, tmp_path / f"picture.{suffix}")
    content = (tmp_path / f"picture.{suffix}").read_bytes()
    assert content.startswith(start)


def test_plot_says_which_lines_were_disturbed(
    made: BenchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # letters stay letters
    plot(made, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert ">2 threads<" in text
    assert ">2 threads, batch 2, 2 beams (disturbed)<" in text
    noisy = replace(made.cases[0], conditions=made.cases[1].conditions)
    plot(replace(made, cases=(made.cases[0], noisy)), tmp_path / "picture.svg")  # two points of one line
    assert "(disturbed)" in (tmp_path / "picture.svg").read_text()


def test_plot_without_matplotlib(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("bench", package, "--plot", tmp_path / "picture.png")
    assert result.exit_code == MissingDependencyError.exit_code
    assert result.stderr == ("error: --plot needs matplotlib, which is not installed: `pip install edgellm[plot]`\n")


def test_a_plot_that_cannot_be_written(made: BenchResult, tmp_path: Path) -> None:
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OptionError, match="cannot be written"):
        plot(made, tmp_path / "picture.png")


def test_matplotlib_is_not_imported_without_need() -> None:
    code = "import sys, edgellm.cli; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
