"""edgellm export: make a package from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from edgellm.commands.export_text import (
    findings_lines,
    outcome_dict,
    outcome_lines,
    plan_lines,
    quality_lines,
    source_lines,
)
from edgellm.commands.family_table import family_lines
from edgellm.commands.options import SizeType, adapter_option, json_option
from edgellm.commands.progress import shown_progress
from edgellm.errors import MissingDependencyError
from edgellm.ort.library import onnxruntime

STEPS = {
    "optimum": "exporting with optimum",
    "calibrate": "calibrating",
    "calibrate cache": "calibrating the cache",
    "mix": "weighing mixtures",
    "weights": "writing weights",
    "package": "running the package",
    "original": "running the original",
    "compare": "comparing",
}


NOT_PLANNED = ("keep_failed", "verify_with", "python")  # options that a plan does not take


def show_families(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        import_exporter(verify=False)
        click.echo("\n".join(family_lines()))
        context.exit()


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8", "int4", "mixed"]), default="int8",
    help="How weights are stored; mixed is 8 or 4 bits for each matrix, by --max-divergence or --max-size.",
)  # fmt: skip
@click.option(
    "--max-divergence",
    type=float,
    help="Of mixed precision: the smallest package at most so far from the original, in nats per token of KL "
    "divergence; of an encoder, the relative error of its outputs.",
)
@click.option(
    "--max-size",
    type=SizeType(),
    help="Of mixed precision: the closest package of at most this size, like 400MB or 1.5GiB.",
)
@click.option("--target", type=click.Choice(["cpu", "cuda"]), default="cpu", help="What the package will run on.")
@click.option(
    "--kv-cache",
    type=click.Choice(["float", "int8"]),
    default="float",
    help="Type of the key/value cache; float is that of the activations.",
)
@click.option(
    "--task",
    type=click.Choice(["fill-mask", "text-classification", "token-classification", "question-answering",
                       "feature-extraction"]),
    help="What an encoder is for, where its config does not say, or another task that its weights allow.",
)  # fmt: skip
@adapter_option
@click.option(
    "--via",
    type=click.Choice(["optimum"]),
    help="Whose graphs to use where edgellm does not build the model itself; needs the optimum extra.",
)
@click.option("--attentions", is_flag=True, help="Make a package that can give its attention weights; it is slower.")
@click.option(
    "--global-attention",
    type=click.Choice(["none", "first"]),
    default="none",
    help="Of LED: first is what checkpoints for summaries are used with, whose first token sees all others.",
)
@click.option("--revision", help="Branch, tag or commit, where SOURCE is a hub id.")
@click.option("--force", is_flag=True, help="Replace OUT if it is a package.")
@click.option("--keep-failed", is_flag=True, help="Keep a package that is too far from the original, as OUT.failed.")
@click.option("--no-verify", is_flag=True, help="Do not compare the package with the original.")
@click.option(
    "--verify-with",
    type=click.Choice(["transformers"]),
    help="Compare the package also with what transformers makes of SOURCE: tokens, text, chats, numbers, defaults.",
)
@click.option("--python", help="An interpreter that has transformers and torch.  [default: the one that runs edgellm]")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Text in UTF-8, like what the model will see, to round int8 and int4 weights by; built-in English otherwise.",
)
@click.option("--no-calibration", is_flag=True, help="Round int8 and int4 weights as they are.")
@click.option(
    "--families", is_flag=True, is_eager=True, expose_value=False, callback=show_families,
    help="List the model types that can be exported, and end.",
)  # fmt: skip
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be written, its size, memory, time and speed.")
@json_option
def export(
    source: str, out: Path, no_verify: bool, no_calibration: bool, only_plan: bool, as_json: bool, **options: Any
) -> None:
    """Export the checkpoint SOURCE to the package OUT.

    SOURCE is a Hugging Face checkpoint directory, a hub id such as org/name, or a .gguf file; DIR:Q4_K_M and
    org/name:Q4_K_M are one of several. The package is compared with the original on built-in text; one that is too far
    from it is an error, and nothing is kept. OUT appears only when everything has succeeded. With --plan nothing is
    made: it says what the same command without it would do.
    """
    exporter = import_exporter(verify=not no_verify)
    options |= {"verify_quality": not no_verify, "calibrate": not no_calibration}
    if only_plan:
        planned = exporter.plan(source, out, **{k: v for k, v in options.items() if k not in NOT_PLANNED})
        click.echo(json.dumps(planned.to_dict(), indent=2) if as_json else "\n".join(plan_lines(planned)))
        return
    with shown_progress(STEPS) as progress:
        exported = exporter.export(source, out, progress=progress, **options)
    report, outcome = exported.report, exported.outcome
    if as_json:
        content = None if report is None else report.to_dict()
        findings = None if exported.findings is None else exported.findings.to_dict()
        found = {"package": str(out), "report": content, "plan": outcome_dict(outcome), "findings": findings}
        click.echo(json.dumps(found))
    else:
        origin = source_lines(exported.manifest.source)
        lines = [f"exported     {out}", *origin, *quality_lines(report), *outcome_lines(outcome)]
        click.echo("\n".join([*lines, *findings_lines(exported.findings)]))


def import_exporter(*, verify: bool) -> ModuleType:
    """The exporter, which only commands that export need. Raises MissingDependencyError before any work is done."""
    if verify:
        onnxruntime()
    try:
        import edgellm_export
    except ImportError as error:
        raise MissingDependencyError(
            f"exporting needs packages that are not installed ({error}); run `pip install edgellm[export,cpu]`"
        ) from error
    return edgellm_export
