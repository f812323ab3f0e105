"""Mixed precision: the smallest package that is close enough, or the closest that is small enough, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edgellm
import edgellm_export
from comparison import prompt, reference_logits
from edgellm.cli import cli
from edgellm.errors import ExportError
from edgellm.package.report import MixturePoint, Report, read_report

KINDS = ("decoder", "encoder", "encoder-decoder")


@pytest.fixture(scope="module")
def smallest(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """What a budget that everything keeps shows: the whole curve."""
    made: dict[str, Report] = {}

    def report(kind: str) -> Report:
        if kind not in made:
            made[kind] = mixed(tiny(kind), tmp_path_factory.mktemp("smallest") / "package", max_divergence=10.0)
        return made[kind]

    return report


def mixed(source: Path, out: Path, **budget: Any) -> Report:
    report = edgellm_export.export(source, out, precision="mixed", **budget).report
    assert report is not None
    return report


def far(report: Report) -> float:
    quality: Any = report.quality
    return float(quality.error if hasattr(quality, "error") else quality.kl_divergence)


def chosen(report: Report) -> MixturePoint:
    (point,) = [each for each in report.mixture if each.chosen]
    return point


@pytest.mark.parametrize("kind", KINDS)
def test_a_curve_from_8_bits_to_4(kind: str, smallest: Callable[[str], Report]) -> None:
    report = smallest(kind)
    curve = report.mixture
    assert [round(point.four_bits, 1) for point in curve][0::4] == [0.0, 1.0]
    assert [point.four_bits for point in curve] == sorted(point.four_bits for point in curve)
    distances = [point.divergence or 0.0 for point in curve]
    assert distances[0] < 0.5 * distances[-1]
    assert all(distances[0] <= each <= 1.05 * distances[-1] for each in distances)
    assert chosen(report) == curve[-1]
    assert {matrix.bits for matrix in report.matrices if matrix.error is not None} == {4}


@pytest.mark.parametrize("kind", KINDS)
def test_as_far_as_allowed(
    kind: str, tiny: Callable[[str], Path], smallest: Callable[[str], Report], tmp_path: Path
) -> None:
    """What was measured layer by layer is what the package then shows, and little of the budget is left."""
    ends = [point.divergence or 0.0 for point in smallest(kind).mixture]
    budget = (ends[0] + ends[-1]) / 2
    report = mixed(tiny(kind), tmp_path / "package", max_divergence=budget)
    point = chosen(report)
    assert far(report) <= budget
    assert far(report) == pytest.approx(point.divergence, rel=0.1)
    assert 0.2 < point.four_bits < 0.95
    assert {matrix.bits for matrix in report.matrices if matrix.error is not None} == {4, 8}
    assert read_report(tmp_path / "package") == report


def test_what_an_int8_cache_costs_counts(
    tiny: Callable[[str], Path], smallest: Callable[[str], Report], tmp_path: Path
) -> None:
    ends = [point.divergence or 0.0 for point in smallest("decoder").mixture]
    report = mixed(tiny("decoder"), tmp_path / "package", max_divergence=(ends[0] + ends[-1]) / 2, kv_cache="int8")
    assert report.mixture[0].divergence != ends[0]
    assert far(report) == pytest.approx(chosen(report).divergence, rel=0.1)
    assert far(report) <= (ends[0] + ends[-1]) / 2


def test_the_originals_own_framework_sees_the_same_order(
    tiny: Callable[[str], Path], smallest: Callable[[str], Report], tmp_path: Path
) -> None:
    """Divergence from transformers' logits, on text that the export did not use."""
    import torch
    import transformers as hf

    original = hf.AutoModelForCausalLM.from_pretrained(tiny("decoder"), dtype=torch.float32)
    ids, ends = prompt("llama", 60), [point.divergence or 0.0 for point in smallest("decoder").mixture]
    expected = reference_logits(original, ids).astype(np.float64)
    found = []
    for budget in (ends[1], ends[3]):
        mixed(tiny("decoder"), tmp_path / str(budget), max_divergence=budget * 1.05)
        logits = edgellm.load(tmp_path / str(budget), threads=1).logits(ids).astype(np.float64)
        p, q = (each - np.log(np.exp(each).sum(axis=-1, keepdims=True)) for each in (expected, logits))
        found.append(float((np.exp(p) * (p - q)).sum(axis=-1).mean()))
    assert 0 < found[0] < found[1] < 3 * ends[3]


@pytest.mark.real_model
def test_as_small_as_asked(minilm: Path, tmp_path: Path) -> None:
    report = mixed(minilm, tmp_path / "package", max_size=23_000_000)
    size = sum(path.stat().st_size for path in (tmp_path / "package").rglob("*") if path.is_file())
    assert 22_500_000 < size <= 23_000_000
    assert size == pytest.approx(chosen(report).size_bytes, rel=0.001)
    sizes = [point.size_bytes for point in report.mixture]
    assert sizes == sorted(sizes, reverse=True)
    # Half of the way to 4 bits costs less than half of the divergence's square, as what costs least goes first.
    first, middle, last = (report.mixture[i].divergence or 0.0 for i in (0, len(sizes) // 2, -1))
    assert middle**2 - first**2 < 0.5 * (last**2 - first**2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "mixed"}, "either the divergence or the size"),
        ({"precision": "mixed", "max_size": 10**6, "max_divergence": 0.1}, "either the divergence or the size"),
        ({"precision": "int8", "max_size": 10**6}, "--precision mixed"),
        ({"precision": "mixed", "max_divergence": -1.0}, "above zero; found -1"),
        ({"precision": "mixed", "max_divergence": float("nan")}, "above zero; found nan"),
        ({"precision": "mixed", "max_size": 10**6, "calibrate": False}, "leave out --no-calibration"),
        ({"precision": "mixed", "max_size": 10**6, "via": "optimum"}, "leave out --via optimum"),
        ({"precision": "mixed", "max_size": 1000}, "smaller than one with all layers in 4 bits"),
        ({"precision": "mixed", "max_divergence": 1e-9}, "less than that of all layers in 8 bits"),
    ],
)
def test_budgets_that_cannot_be(
    options: dict[str, Any], message: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        edgellm_export.export(tiny("decoder"), tmp_path / "package", **options)
    assert not list(tmp_path.iterdir())


def test_without_a_tokenizer(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny("decoder") / name).read_bytes())
    with pytest.raises(ExportError, match="no tokenizer"):
        mixed(tmp_path, tmp_path / "package", max_divergence=0.1)


def test_at_the_command_line(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "package"
    command = ["export", str(tiny("decoder")), str(out), "--precision", "mixed"]
    planned = CliRunner().invoke(cli, [*command, "--max-size", "200kB", "--plan"])
    assert planned.exit_code == 0, planned.output
    assert "mixtures\n" in planned.output
    assert "100% in 4 bits: " in planned.output
    plan = json.loads(CliRunner().invoke(cli, [*command, "--max-divergence", "9", "--plan", "--json"]).output)
    assert [point["four_bits"] for point in plan["mixture"]] == [0, 0.25, 0.5, 0.75, 1]
    assert all(point["tokens_per_second"] > 0 for point in plan["mixture"])
    small = CliRunner().invoke(cli, [*command, "--max-size", "9kB", "--plan"])
    assert "is the least of any mixture, and 8.8 KiB are allowed" in small.output
    made = CliRunner().invoke(cli, [*command, "--max-divergence", "9"])
    assert made.exit_code == 0, made.output
    assert "> 100% in 4 bits: " in made.output
    assert "#####" in made.output
    inspected = CliRunner().invoke(cli, ["inspect", str(out)])
    assert inspected.exit_code == 0, inspected.output
    assert "mixed" in inspected.output
    bad = CliRunner().invoke(cli, [*command, "--max-size", "4 apples"])
    assert bad.exit_code == 2
    assert "expected a number and a unit" in bad.output
