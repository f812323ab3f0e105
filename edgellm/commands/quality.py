"""A package's report.json for a person: how close it is to the original, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import PackageCorruptError
from edgellm.package.json_file import read_json

REPORT_NAME = "report.json"


def read_report(package: Path) -> dict[str, Any] | None:
    """None if the package was exported without a comparison."""
    return read_json(package / REPORT_NAME) or None


def quality_lines(report: Mapping[str, Any] | None) -> list[str]:
    if report is None:
        return ["quality      not compared with the original (--no-verify)"]
    try:
        return _lines(report)
    except (KeyError, TypeError, ValueError) as error:
        raise PackageCorruptError(f"{REPORT_NAME} cannot be read ({error!r}); export the package again") from error


def _lines(report: Mapping[str, Any]) -> list[str]:
    q, limits = report["quality"], report["thresholds"]
    worst = ", ".join(f"{_place(layer)} ({layer['error']:.2%})" for layer in report["worst_layers"]) or "none"
    package = f"package      {report['size_bytes'] / 2**20:.0f} MiB, {report['precision']} ({_scheme(report)})" + (
        ", int8 cache" if report.get("cache") == "int8" else ""
    )
    verdict = f"verdict      {report['verdict']}; least faithful layers: {worst}"
    if "output" in q:
        return [package, *_encoder_lines(q, limits), verdict]
    return [
        package,
        f"divergence   {q['kl_divergence']:.5f} nats per token from the original (limit {limits['kl_divergence']:g}), "
        f"{q['tokens']} tokens of {q['text']}",
        f"agreement    top-1 {q['top1_agreement']:.2%} (limit {limits['top1_agreement']:.0%}), "
        f"greedy {q['greedy_agreement']:.0%} of {q['greedy_tokens']} tokens",
        f"perplexity   {q['perplexity_package']:.3f}, original {q['perplexity_original']:.3f}",
        verdict,
    ]


def _encoder_lines(q: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    agreement = q["top1_agreement"]
    return [
        f"error        {q['error']:.3%} of {q['output']} (limit {limits['error']:.2%}), {q['texts']} texts with "
        f"{q['tokens']} tokens of {q['text']}",
        f"cosine       {q['cosine']:.6f} to the original, {q['cosine_min']:.6f} at worst",
        *(
            [f"agreement    top-1 {agreement:.2%} (limit {limits['top1_agreement']:.0%})"]
            if agreement is not None
            else []
        ),
    ]


def _place(layer: Mapping[str, Any]) -> str:
    return f"{layer['part']} {layer['layer']}" if layer.get("part") else str(layer["layer"])


def _scheme(report: Mapping[str, Any]) -> str:
    """Its name or, where calibration chose several for the matrices, how many have which."""
    schemes = Counter(matrix["scheme"] for matrix in report.get("matrices", ()))
    if len(schemes) < 2:
        return str(report["scheme"])
    return ", ".join(f"{count} layers {scheme}" for scheme, count in schemes.most_common())
