"""The plan of an export, and what became of it, for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgellm.inspection.footprint import size
from edgellm.package.report import ExportOutcome, Foreseen

if TYPE_CHECKING:  # the exporter is imported where it is needed
    from edgellm_export.planning.plan import Plan

MINUTE = 120  # seconds from which minutes are shown


def plan_lines(plan: Plan) -> list[str]:
    prediction, machine = plan.prediction, plan.machine
    manifest, package = prediction.manifest, prediction.package
    step = max(prediction.peaks, key=lambda name: prediction.peaks[name])
    return [
        f"model        {manifest.model_type}, {manifest.task}",
        f"weights      {manifest.weights.precision} ({manifest.weights.scheme}), for {manifest.target}",
        f"size         {size(prediction.size)}",
        *(f"  {name}  {size(count)}" for name, count in prediction.files.items()),
        f"memory       {size(prediction.peak)} for the export, at most while {step}",
        f"time         about {_duration(plan.seconds)} for the export",
        f"running      {size(package.total)} of memory at {package.context} tokens",
        *_speed(plan),
        *_cache(plan),
        *_machine(plan),
        *(f"problem      {problem}" for problem in plan.problems),
        f"verdict      {'will not do as it is' if plan.problems else 'nothing speaks against it'}, "
        f"{size(machine.disk_free)} of disk"
        + ("" if machine.memory_free is None else f" and {size(machine.memory_free)} of memory")
        + " are free",
    ]


def _speed(plan: Plan) -> list[str]:
    if plan.tokens_per_second is None:
        return []
    prompt = plan.prompt_tokens_per_second
    reading = "" if prompt is None else f", a prompt at about {prompt:.0f}"
    return [
        f"speed        about {plan.tokens_per_second:.0f} tokens/s{reading}: each token reads "
        f"{size(plan.prediction.read_per_token)}"
    ]


def _cache(plan: Plan) -> list[str]:
    sizes = ", ".join(f"{size(count)} at {tokens} tokens" for tokens, count in plan.cache.items())
    return [f"cache        {sizes}"] if sizes else []


def _machine(plan: Plan) -> list[str]:
    machine = plan.machine
    bandwidth = machine.bandwidth
    reads = "" if bandwidth is None else f"{bandwidth.bytes_per_s / 1e9:.0f} GB/s read, "
    lines = [f"machine      {machine.threads} threads, {reads}{machine.speed.flops / 1e9:.0f} GFLOP/s in float32"]
    if bandwidth is not None and bandwidth.disturbed:
        lines.append(f"             disturbed: {'; '.join(bandwidth.disturbed)}")
    return lines


def outcome_lines(outcome: ExportOutcome | None) -> list[str]:
    """What was predicted, and what happened."""
    if outcome is None:
        return []
    return [
        "predicted    "
        + ", ".join(
            (
                _compared("size", outcome.size_bytes, size),
                _compared("memory", outcome.peak_memory_bytes, size),
                _compared("time", outcome.seconds, _duration),
            )
        )
    ]


def _compared(name: str, values: Foreseen, shown: Any) -> str:
    if values.actual is None or values.share is None:
        return f"{name} {shown(values.predicted)}, got no more than before"
    return f"{name} {shown(values.predicted)}, got {shown(values.actual)} ({values.share:.0%})"


def outcome_dict(outcome: ExportOutcome | None) -> dict[str, Any] | None:
    return None if outcome is None else asdict(outcome)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < MINUTE else f"{seconds / 60:.0f} min"
