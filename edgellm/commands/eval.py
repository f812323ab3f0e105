"""edgellm eval: how good a package is, by data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgellm.commands.options import chosen, device_option, json_option, package_argument, threads_option
from edgellm.commands.progress import shown_progress
from edgellm.errors import OptionError
from edgellm.evaluation.kinds import KINDS
from edgellm.evaluation.results import Evaluation, Metric

STEPS = {"evaluate": "evaluating"}

file_type = click.Path(path_type=Path)


@click.command("eval")
@package_argument
@click.option("--data", type=file_type, help="Text, JSON lines, JSON, CSV or TSV in UTF-8; by default built-in text.")
@click.option("--task", type=click.Choice(list(KINDS)), help="What to do, where package and columns do not say.")
@click.option("--column", "columns", multiple=True, metavar="ROLE=NAME", help="The column for a role. May be repeated.")
@click.option("--limit", type=int, help="At most so many examples; windows for perplexity and divergence.")
@click.option("--window", type=int, help="perplexity, divergence: tokens that the model sees at once.")
@click.option("--stride", type=int, help="perplexity, divergence: tokens from window to window.  [default: half]")
@click.option("--predictions", type=file_type, help="Write what the model said to this file, in JSON lines.")
@click.option("--batch-size", type=int, help="Examples per run; results do not depend on it.")
@device_option
@threads_option
@json_option
def evaluate(package: Path, columns: Sequence[str], as_json: bool, **arguments: Any) -> None:
    """Judge the package PKG by data."""
    from edgellm.evaluation import evaluate as run

    with shown_progress(STEPS) as progress:
        result = run(package, columns=columns_of(columns), progress=progress, **chosen(arguments))
    click.echo(json.dumps(result.to_dict(), ensure_ascii=False, indent=2) if as_json else table(result))


def columns_of(given: Sequence[str]) -> dict[str, list[str]]:
    """ "source=de" to {"source": ["de"]}; a role that is there twice has two columns."""
    columns: dict[str, list[str]] = {}
    for one in given:
        role, equals, name = one.partition("=")
        if not equals or not role or not name:
            raise OptionError(f"--column is {one!r}, expected ROLE=NAME, such as source=de")
        columns.setdefault(role, []).append(name)
    return columns


def table(result: Evaluation) -> str:
    width = max(map(len, result.metrics))
    package, data = result.package, result.data
    head = [
        f"package  {package['path']}, {package['precision']} ({package['scheme']})",
        f"data     {data['file'] or data['name']}, {data['examples']} examples",
        f"task     {result.task}{_settings(result.settings)}",
        "",
    ]
    return "\n".join([*head, *(f"{name:{width}}  {_number(metric)}" for name, metric in result.metrics.items())])


def _settings(settings: Mapping[str, Any]) -> str:
    shown = [f"{name} {value}" for name, value in settings.items() if value not in (None, {}) and name != "batch_size"]
    return "".join(f", {one}" for one in shown)


def _number(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return f"{metric.value:.5g}"
    return f"{metric.value:<9.5g} {metric.low:.5g} to {metric.high:.5g}"
