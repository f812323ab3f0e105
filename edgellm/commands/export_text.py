"""What `edgellm export` prints for people: the plan, what became of it, and the quality report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgellm.inspection.footprint import size
from edgellm.package.report import (
    EncoderReport,
    ExportOutcome,
    Foreseen,
    GenerationReport,
    MixturePoint,
    QuantizedSource,
    Report,
)

if TYPE_CHECKING:  # the exporter is imported where it is needed
    from edgellm_export.planning.plan import Plan
    from edgellm_export.witness.findings import Findings

NAMES = 24  # characters of the column of what was compared with transformers
MINUTE = 120  # seconds from which minutes are shown
NAMED = 4  # matrices
BAR = 30  # characters of the longest


def source_lines(source: Mapping[str, Any]) -> list[str]:
    """A line for each adapter that a manifest's source names, and one where it is a model of images, too."""
    adapters, whole, parts = source.get("adapters"), source.get("text_of"), source.get("left_out")
    left_out = ", ".join(map(str, parts)) if isinstance(parts, list) else ""
    lines = []
    if whole is not None:
        refused = "images and audio" if "audio" in left_out else "images"
        lines.append(f"text alone   of {whole}{f', without {left_out}' if left_out else ''}; {refused} are refused")
    for adapter in adapters if isinstance(adapters, list) else ():
        if isinstance(adapter, Mapping):
            revision = f" at {adapter['revision']}" if adapter.get("revision") else ""
            weight = "" if adapter.get("weight", 1) == 1 else f", weight {adapter['weight']}"
            base = f", trained on {adapter['base']}" if adapter.get("base") else ""
            lines.append(f"adapter      {adapter.get('name', 'unknown')}{revision}{weight}{base}")
    return lines


def plan_lines(plan: Plan) -> list[str]:
    prediction, machine = plan.prediction, plan.machine
    manifest, package = prediction.manifest, prediction.package
    step = max(prediction.peaks, key=lambda name: prediction.peaks[name])
    return [
        f"model        {manifest.model_type}, {manifest.task}",
        *source_lines(manifest.source),
        f"weights      {manifest.weights.precision} ({manifest.weights.scheme}), for {manifest.target}",
        f"size         {size(prediction.size)}",
        *(f"  {name}  {size(count)}" for name, count in prediction.files.items()),
        f"memory       {size(prediction.peak)} for the export, at most while {step}",
        f"time         about {_duration(plan.seconds)} for the export",
        f"running      {size(package.total)} of memory at {package.context} tokens",
        *_speed(plan),
        *mixture_lines(plan.mixture),
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


def mixture_lines(mixture: Sequence[MixturePoint]) -> list[str]:
    """Size, speed and divergence of each, and the divergence as a bar."""
    most = max((point.divergence or 0 for point in mixture), default=0) or 1
    lines = []
    for point in mixture:
        speed = "" if point.tokens_per_second is None else f", about {point.tokens_per_second:.0f} tokens/s"
        far = ""
        if point.divergence is not None:
            far = f", divergence {point.divergence:.5f} {'#' * round(BAR * point.divergence / most)}"
        mark = ">" if point.chosen else " "
        lines.append(f"{mark} {point.four_bits:>4.0%} in 4 bits: {size(point.size_bytes)}{speed}{far}")
    return ["mixtures", *lines] if lines else []


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


def quality_lines(report: Report | None) -> list[str]:
    if report is None:
        return ["quality      not compared with the original (--no-verify)"]
    worst = ", ".join(f"{layer.place} ({layer.error:.2%})" for layer in report.worst_layers()) or "none"
    cache = ", int8 cache" if report.cache == "int8" else ""
    return [
        f"package      {report.size_bytes / 2**20:.0f} MiB, {report.precision} ({report.scheme}){cache}",
        *(_generation_lines(report) if isinstance(report, GenerationReport) else []),
        *(_encoder_lines(report) if isinstance(report, EncoderReport) else []),
        *_source_lines(report.source),
        *mixture_lines(report.mixture),
        f"verdict      {report.verdict}; least faithful layers: {worst}",
    ]


def _source_lines(source: QuantizedSource | None) -> list[str]:
    if source is None:
        return []
    anew = f" ({', '.join(source.rounded)})" if 0 < len(source.rounded) <= NAMED else ""
    parts = [
        f"{len(source.kept)} keep their integers" if source.kept else "",
        f"{len(source.rounded)} rounded anew{anew}" if source.rounded else "",
        f"{len(source.widened)} widened" if source.widened else "",
    ]
    own = "" if source.activations is None else f"; its rounding of activations ({source.activations}) is left out"
    return [f"checkpoint   {source.method}; of its matrices {', '.join(filter(None, parts)) or 'none is used'}{own}"]


def _generation_lines(report: GenerationReport) -> list[str]:
    q, limits = report.quality, report.thresholds
    return [
        f"divergence   {q.kl_divergence:.5f} nats per token from the original (limit {limits.kl_divergence:g}), "
        f"{q.tokens} tokens of {q.text}",
        f"agreement    top-1 {q.top1_agreement:.2%} (limit {limits.top1_agreement:.0%}), "
        f"greedy {q.greedy_agreement:.0%} of {q.greedy_tokens} tokens",
        f"perplexity   {q.perplexity_package:.3f}, original {q.perplexity_original:.3f}",
    ]


def _encoder_lines(report: EncoderReport) -> list[str]:
    q, limits = report.quality, report.thresholds
    lines = [
        f"error        {q.error:.3%} of {q.output} (limit {limits.error:.2%}), {q.texts} texts with {q.tokens} tokens "
        f"of {q.text}",
        f"cosine       {q.cosine:.6f} to the original, {q.cosine_min:.6f} at worst",
    ]
    if q.top1_agreement is not None:
        lines.append(f"agreement    top-1 {q.top1_agreement:.2%} (limit {limits.top1_agreement:.0%})")
    return lines


def findings_lines(findings: Findings | None) -> list[str]:
    """What transformers says of the package."""
    if findings is None:
        return []
    return [
        f"compared with transformers {findings.version} ({findings.model_class})",
        *(f"  {check.name:<{NAMES}} {check.line}" for check in findings.checks),
        *(f"  note: {note}" for note in findings.notes),
    ]
