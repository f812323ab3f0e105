"""How far a package may be from its original, and the error of one that is further away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgellm.errors import QualityGateError
from edgellm.package.manifest import Precision
from edgellm.package.report import EncoderThresholds, GenerationThresholds, Report
from edgellm_export.calibration.mixing import Budget

# float32 differs by rounding alone, float16 by its 11 bits. int8 and int4: round-to-nearest blocks of 32 measured 0.005
# and about 0.3 on a model of 135 M parameters, the hardest size; a broken layer costs whole nats. Agreement is the
# looser limit: a flat distribution changes its mind at near-ties (0.89 on random weights at a divergence of 0.0003),
# but a broken package whose logits are flat, and so close in divergence, agrees almost nowhere.
THRESHOLDS: dict[Precision, GenerationThresholds] = {
    "fp32": GenerationThresholds(1e-5, 0.99),
    "fp16": GenerationThresholds(1e-3, 0.90),
    "int8": GenerationThresholds(0.02, 0.75),
    "int4": GenerationThresholds(0.70, 0.40),
    "mixed": GenerationThresholds(0.70, 0.40),
}

# What an int8 cache may cost on top: below 0.002 on the same model, up to 0.005 on random weights, whose agreement it
# lowers by up to 0.06.
INT8_CACHE = GenerationThresholds(0.01, 0.10)

# int8: 0.03 to 0.05 on MiniLM's 6 layers, up to 0.1 on random weights, whose activations have nothing of a trained
# model's redundancy; int4: 0.2 to 0.5. A broken layer (rows in another order, a bias left out) costs 0.5 to 1.4.
# Agreement is the looser limit here too: near ties change sides, and a classifier gives only some dozens of cases.
ENCODER_THRESHOLDS: dict[Precision, EncoderThresholds] = {
    "fp32": EncoderThresholds(1e-4, 0.99),
    "fp16": EncoderThresholds(0.01, 0.90),
    "int8": EncoderThresholds(0.15, 0.75),
    "int4": EncoderThresholds(0.60, 0.40),
    "mixed": EncoderThresholds(0.60, 0.40),
}


def thresholds(precision: Precision, cache: str) -> GenerationThresholds:
    """The limits of a package with a cache of that type."""
    limits = THRESHOLDS[precision]
    if cache != "int8":
        return limits
    return GenerationThresholds(
        limits.kl_divergence + INT8_CACHE.kl_divergence, limits.top1_agreement - INT8_CACHE.top1_agreement
    )


def within(report: Report, budget: Budget | None) -> Report:
    """`report` with the budget's divergence, if it has one, for a limit."""
    if budget is None or budget.divergence is None:
        return report
    limits = report.thresholds
    if isinstance(limits, EncoderThresholds):
        return replace(report, thresholds=replace(limits, error=budget.divergence))
    return replace(report, thresholds=replace(limits, kl_divergence=budget.divergence))


def gate(report: Report, kept: Path | None = None) -> None:
    """Raises QualityGateError unless the report has `passed`. `kept`: where the package will be for a look."""
    if report.passed:
        return
    agreement, least = report.quality.top1_agreement, report.thresholds.top1_agreement
    agreed = "" if agreement is None else f", top-1 agreement {agreement:.2%} (at least {least:.0%})"
    raise QualityGateError(
        f"the {report.precision} package is too far from the original: {report.distance}{agreed}; export with a higher "
        f"precision, or look at {kept or 'the result with --keep-failed'}"
    )
