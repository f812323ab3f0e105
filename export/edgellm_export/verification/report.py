"""report.json: how close the package is to the original, and whether that is close enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edgellm.errors import QualityGateError
from edgellm.package.manifest import Precision

REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Thresholds:
    """The furthest a package may be from its original. KL divergence in nats per token, agreement as a share of
    tokens."""

    kl_divergence: float
    top1_agreement: float


# float32 differs by rounding alone, float16 by its 11 bits. int8 and int4: round-to-nearest blocks of 32 measured 0.005
# and about 0.3 on a model of 135 M parameters, the hardest size; a broken layer costs whole nats. Agreement is the
# looser limit: a flat distribution changes its mind at near-ties (0.89 on random weights at a divergence of 0.0003),
# but a broken package whose logits are flat, and so close in divergence, agrees almost nowhere.
THRESHOLDS: dict[Precision, Thresholds] = {
    "fp32": Thresholds(1e-5, 0.99),
    "fp16": Thresholds(1e-3, 0.90),
    "int8": Thresholds(0.02, 0.75),
    "int4": Thresholds(0.70, 0.40),
}

# What an int8 cache may cost on top: below 0.002 on the same model, up to 0.005 on random weights, whose agreement it
# lowers by up to 0.06.
INT8_CACHE = Thresholds(0.01, 0.10)


def thresholds(precision: Precision, cache: str) -> Thresholds:
    """Of a package with a cache of that type."""
    limits = THRESHOLDS[precision]
    if cache != "int8":
        return limits
    return Thresholds(
        limits.kl_divergence + INT8_CACHE.kl_divergence, limits.top1_agreement - INT8_CACHE.top1_agreement
    )


@dataclass(frozen=True)
class LayerReport:
    """`error`: the layer's output error relative to what the layer adds, on the float model's own input. `part`: of an
    encoder-decoder, the side."""

    layer: int
    error: float
    part: Literal["encoder", "decoder"] | None = None


@dataclass(frozen=True)
class MatrixReport:
    """How calibration rounded the matrix of the layer at a node. `error`: root mean square, over tokens of calibration
    text, of the relative error of the layer's outputs."""

    node: str
    scheme: str
    error: float


@dataclass(frozen=True)
class Quality:
    """Package, on `device`, against float model on `tokens` positions of text. KL divergence in nats per token, mean
    and worst."""

    tokens: int
    text: str
    device: str
    kl_divergence: float
    kl_divergence_max: float
    top1_agreement: float
    perplexity_original: float
    perplexity_package: float
    greedy_tokens: int
    greedy_agreement: float


@dataclass(frozen=True)
class Report:
    """`cache`: the type of the key/value cache. `calibration`: the text that channel scales came from, or "none".
    `matrices`: those that it rounded. `size_bytes`: weights and graph. `passed`: the quality is within `thresholds`."""

    precision: Precision
    scheme: str
    cache: str
    calibration: str
    size_bytes: int
    quality: Quality
    layers: Sequence[LayerReport]
    matrices: Sequence[MatrixReport]
    thresholds: Thresholds

    @property
    def passed(self) -> bool:
        q, t = self.quality, self.thresholds
        return q.kl_divergence <= t.kl_divergence and q.top1_agreement >= t.top1_agreement

    def worst_layers(self, count: int = 3) -> list[LayerReport]:
        return sorted(self.layers, key=lambda layer: -layer.error)[:count]

    def write(self, directory: Path) -> None:
        data = {
            **asdict(self),
            "worst_layers": [asdict(layer) for layer in self.worst_layers()],
            "verdict": "passed" if self.passed else "failed",
        }
        (directory / REPORT_NAME).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

    def gate(self, kept: Path | None = None) -> None:
        """Raises QualityGateError unless `passed`. `kept`: where the package will be for a look."""
        q, t = self.quality, self.thresholds
        if not self.passed:
            raise QualityGateError(
                f"the {self.precision} package is too far from the original: KL divergence {q.kl_divergence:.4g} "
                f"(at most {t.kl_divergence:g}), top-1 agreement {q.top1_agreement:.2%} (at least "
                f"{t.top1_agreement:.0%}); export with a higher precision, or look at "
                f"{kept or 'the result with --keep-failed'}"
            )
