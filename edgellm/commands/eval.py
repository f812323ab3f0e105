"""edgellm eval: how good a package is, by data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgellm.commands.options import chosen, generation_options, json_option, package_argument, with_options
from edgellm.commands.progress import shown_progress
from edgellm.errors import OptionError
from edgellm.evaluation.kinds import KINDS
from edgellm.evaluation.procedure import evaluate as run
from edgellm.evaluation.results import Evaluation, Metric
from edgellm.evaluation.text_scores import BLEU_TOKENIZERS

STEPS = {"weights": "exporting the reference", "evaluate": "evaluating"}

file_type = click.Path(path_type=Path)

# What each kind of evaluation takes beside these is in the documentation.
OPTIONS = [
    click.option("--data", type=file_type, help="Text, JSON lines, JSON, CSV or TSV in UTF-8; else built-in English."),
    click.option("--targets", multiple=True, type=file_type,
                 help="The expected text of each line of the data. May be repeated."),
    click.option("--task", type=click.Choice(list(KINDS)), help="What to do, where package and columns do not say."),
    click.option("--column", "columns", multiple=True, metavar="ROLE=NAME",
                 help="The column that is the text, source, target, label, ... May be repeated."),
    click.option("--reference", help="Compare with this package or checkpoint (directory, .gguf file, hub id)."),
    click.option("--limit", type=int, help="At most so many examples; windows for perplexity and divergence."),
    click.option("--predictions", type=file_type, help="Write what the model said to this file, in JSON lines."),
    click.option("--batch-size", type=int, help="Examples per run; results do not depend on it."),
    click.option("--bootstrap", type=click.IntRange(min=0), help="Resamples for intervals; 0 for none."),
    click.option("--window", type=int, help="perplexity, divergence: most tokens that the model sees at once."),
    click.option("--stride", type=int, help="perplexity, divergence: tokens from window to window."),
    click.option("--join", is_flag=True, default=None, help="perplexity, divergence: all records are one text."),
    click.option("--prompt", help="Generated texts: how to ask, with {source}, {question} or {any column} in it."),
    click.option("--chat", is_flag=True, default=None, help="Generated texts: ask through the chat template."),
    click.option("--src-lang", help="translation: the language of the sources."),
    click.option("--tgt-lang", help="translation: the language to translate to."),
    click.option("--bleu-tokenize", type=click.Choice(BLEU_TOKENIZERS), help="BLEU: how to find words."),
    click.option("--lowercase", is_flag=True, default=None, help="BLEU, chrF: without regard to case."),
    click.option("--rouge-stemmer", is_flag=True, default=None, help="ROUGE: words without English endings."),
    click.option("--label", multiple=True, metavar="DATA=MODEL", help="A label of the data, and the model's."),
    click.option("--positive", help="text-classification: the label of two whose F1 counts."),
    click.option("--truncation", is_flag=True, default=None, help="Cut what is too long for the model."),
    click.option("--handle-impossible-answer/--no-handle-impossible-answer", default=None,
                 help="question-answering: there may be no answer.  [default: as in the data]"),
    click.option("--max-answer-len", type=int, help="question-answering: most tokens of an answer."),
    click.option("--max-seq-len", type=int, help="question-answering: most tokens of a window and the question."),
    click.option("--doc-stride", type=int, help="question-answering: tokens that windows have in common."),
]  # fmt: skip


@click.command("eval")
@package_argument
@with_options(OPTIONS)
@generation_options
@json_option
def evaluate(package: Path, columns: Sequence[str], label: Sequence[str], as_json: bool, **arguments: Any) -> None:
    """Judge the package PKG by data.

    Texts give perplexity; sources with targets BLEU, chrF and ROUGE; labels accuracy and F1; questions with answers
    exact match and F1; a reference KL divergence and agreement. The package's task and the columns of the data say
    which, or --task does.
    """
    choices = chosen({**arguments, "label": dict(map(pair_of_labels, label)) or None})
    with shown_progress(STEPS) as progress:
        result = run(package, columns=columns_of(columns), progress=progress, **choices)
    click.echo(json.dumps(result.to_dict(), ensure_ascii=False, indent=2) if as_json else table(result))


def pair_of_labels(given: str) -> tuple[str, str]:
    name, equals, to = given.partition("=")
    if not equals or not name or not to:
        raise OptionError(f"--label is {given!r}, expected DATA=MODEL, such as pos=POSITIVE")
    return name, to


def columns_of(given: Sequence[str]) -> dict[str, list[str]]:
    """The columns by role: "source=de" is {"source": ["de"]}; a role that is there twice has two columns."""
    columns: dict[str, list[str]] = {}
    for one in given:
        role, equals, name = one.partition("=")
        if not equals or not role or not name:
            raise OptionError(f"--column is {one!r}, expected ROLE=NAME, such as source=de")
        columns.setdefault(role, []).append(name)
    return columns


def table(result: Evaluation) -> str:
    """What was judged by what, the metrics with their intervals, and what these are of."""
    package, other, data = result.package, result.reference, result.data
    lines = [
        f"package  {package['path']}, {package['precision']} ({package['scheme']})",
        *([f"against  {other['path']}, {other['precision']} ({other['scheme']})"] if other else []),
        f"data     {data['file'] or data['name']}, {data['examples']} examples",
        f"task     {', '.join([result.task, *_plain(result.settings)])}",
        "",
        *_metric_lines(result.metrics),
        "",
        ", ".join([*_plain(result.details), f"{result.seconds:.1f} s"]),
    ]
    return "\n".join(lines + [f"{name}: {text}" for name, text in result.details.get("signatures", {}).items()])


def _metric_lines(metrics: Mapping[str, Metric]) -> list[str]:
    width = max(map(len, ("95% interval", *metrics)))
    rows = [f"{name:{width}}  {_number(metric)}" for name, metric in metrics.items()]
    return [f"{'':{width}}  {'':<9}  95% interval", *rows]


def _plain(values: Mapping[str, Any]) -> list[str]:
    """The values that fit into a line, with their names: "window 1024"."""
    kept = {
        name: value for name, value in values.items() if isinstance(value, str | int | float) and value is not False
    }
    return [f"{name} {_shown(value)}" for name, value in kept.items() if value != "" and name != "batch_size"]


def _shown(value: str | float) -> str:
    if value is True:
        return "yes"
    return f"{value:.5g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)


def _number(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return f"{metric.value:.5g}"
    return f"{metric.value:<9.5g}  {metric.low:.5g} to {metric.high:.5g}"
