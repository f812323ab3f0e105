"""A package's report for a person: how close it is to the original, in a few lines."""

from __future__ import annotations

from collections import Counter

from edgellm.package.report import EncoderReport, GenerationReport, Report


def quality_lines(report: Report | None) -> list[str]:
    if report is None:
        return ["quality      not compared with the original (--no-verify)"]
    worst = ", ".join(f"{layer.place} ({layer.error:.2%})" for layer in report.worst_layers()) or "none"
    cache = ", int8 cache" if report.cache == "int8" else ""
    return [
        f"package      {report.size_bytes / 2**20:.0f} MiB, {report.precision} ({_scheme(report)}){cache}",
        *(_generation_lines(report) if isinstance(report, GenerationReport) else []),
        *(_encoder_lines(report) if isinstance(report, EncoderReport) else []),
        f"verdict      {report.verdict}; least faithful layers: {worst}",
    ]


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


def _scheme(report: Report) -> str:
    """The scheme's name or, where calibration chose several for the matrices, how many have which."""
    schemes = Counter(matrix.scheme for matrix in report.matrices)
    if len(schemes) < 2:
        return report.scheme
    return ", ".join(f"{count} layers {scheme}" for scheme, count in schemes.most_common())
