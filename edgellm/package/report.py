"""report.json: how close a package is to its original, and whether that is close enough. A package that was exported
without a comparison has none."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgellm.errors import corrupt
from edgellm.package.json_data import Mistyped, build, read_json
from edgellm.package.layouts import Precision

REPORT_NAME = "report.json"
DERIVED = ("worst_layers", "verdict")  # keys of the file that follow from the others


@dataclass(frozen=True)
class LayerReport:
    """`error`: the layer's output error relative to what the layer adds, on the float model's own input. `part`: of an
    encoder-decoder, the side."""

    layer: int
    error: float
    part: Literal["encoder", "decoder"] | None = None

    @property
    def place(self) -> str:
        return str(self.layer) if self.part is None else f"{self.part} {self.layer}"


@dataclass(frozen=True)
class MatrixReport:
    """How the matrix of the linear layer at a node is stored. `error`: root mean square, over tokens of calibration
    text, of the relative error of the layer's outputs; None where calibration did not round it. `bits`, `block_size`:
    of its integers; older files lack them."""

    node: str
    scheme: str
    error: float | None
    bits: int | None = None
    block_size: int | None = None


@dataclass(frozen=True)
class MixturePoint:
    """A mixture of matrices in 8 and in 4 bits. `four_bits`: the share of the layers' weights that are in 4 bits.
    `size_bytes`: about what the package takes. `divergence`: KL divergence from the original in nats per token, of an
    encoder the relative error of its outputs, measured layer by layer on the text of the quality.
    `tokens_per_second`: foreseen for decoding on the CPU of the machine that exports. None where a figure is not known.
    """

    four_bits: float
    size_bytes: int
    divergence: float | None = None
    tokens_per_second: float | None = None
    chosen: bool = False


@dataclass(frozen=True)
class QuantizedSource:
    """What became of the matrices of a checkpoint that was quantized already, by `method`. `kept`: the layers, or
    lookups, whose integers the package has too. `rounded`: those that were widened and rounded anew. `widened`: those
    that are stored as floating-point numbers. `activations`: the type that the checkpoint rounds its layers' inputs to,
    such as int8, which the package does not follow; None where it rounds none."""

    method: str
    kept: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    activations: str | None = None


@dataclass(frozen=True)
class GenerationThresholds:
    """The furthest a package that generates may be from its original. KL divergence in nats per token, agreement as a
    share of tokens."""

    kl_divergence: float
    top1_agreement: float


@dataclass(frozen=True, kw_only=True)
class GenerationQuality:
    """Package, on `device`, against float model on `tokens` positions of text. KL divergence in nats per token, mean
    and worst."""

    tokens: int
    text: str
    device: str = ""
    kl_divergence: float
    kl_divergence_max: float
    top1_agreement: float
    perplexity_original: float
    perplexity_package: float
    greedy_tokens: int
    greedy_agreement: float


@dataclass(frozen=True)
class EncoderThresholds:
    """The furthest an encoder's package may be from its original: `error`, relative size of what the outputs differ by,
    and, where the largest output is what counts, the share of cases in which it is the same."""

    error: float
    top1_agreement: float


@dataclass(frozen=True)
class EncoderQuality:
    """Package against float model on texts. `error`: root of the squared differences' sum over that of the original's
    outputs. `cosine`, `cosine_min`: of each token's (or text's) outputs, mean and worst. `top1_agreement`: how often
    the largest output is the same, None where it says nothing (hidden states, a single label)."""

    texts: int
    tokens: int
    text: str
    device: str
    output: str
    error: float
    cosine: float
    cosine_min: float
    top1_agreement: float | None


@dataclass(frozen=True)
class Foreseen:
    """A figure of an export. `actual`: None where it is not known."""

    predicted: float
    actual: float | None

    @property
    def share(self) -> float | None:
        """The actual figure as a share of the predicted one; 1 is as foreseen."""
        return None if self.actual is None else self.actual / self.predicted


@dataclass(frozen=True)
class ExportOutcome:
    """What was foreseen of the export beside what happened. `peak_memory_bytes`: of the process, known where the export
    took more than all that was before it."""

    size_bytes: Foreseen
    peak_memory_bytes: Foreseen
    seconds: Foreseen


@dataclass(frozen=True, kw_only=True)
class Report(ABC):
    """The file's content. `cache`: the type of the key/value cache, of models that generate. `calibration`: the text
    that channel scales came from, or "none". `size_bytes`: weights and graph. `matrices`: the linear
    layers that have integers. `passed`: the quality is within `thresholds`. `source`: None where the checkpoint was not
    quantized. `mixture`: of "mixed", those that were tried, the largest first. `plan`: None where nothing was
    foreseen."""

    precision: Precision
    scheme: str
    cache: str | None = None
    calibration: str = "none"
    size_bytes: int
    quality: GenerationQuality | EncoderQuality
    layers: tuple[LayerReport, ...]
    matrices: tuple[MatrixReport, ...] = ()
    thresholds: GenerationThresholds | EncoderThresholds
    source: QuantizedSource | None = None
    mixture: tuple[MixturePoint, ...] = ()
    plan: ExportOutcome | None = None

    @property
    @abstractmethod
    def passed(self) -> bool: ...

    @property
    @abstractmethod
    def distance(self) -> str:
        """The distance from the original beside its limit, as a clause of a message."""

    @property
    def verdict(self) -> Literal["passed", "failed"]:
        return "passed" if self.passed else "failed"

    def worst_layers(self, count: int = 3) -> list[LayerReport]:
        return sorted(self.layers, key=lambda layer: -layer.error)[:count]

    def to_dict(self) -> dict[str, Any]:
        data = {name: value for name, value in asdict(self).items() if value is not None}
        if not self.mixture:
            del data["mixture"]
        plan = {"plan": data.pop("plan")} if self.plan is not None else {}
        return {**data, "worst_layers": [*map(asdict, self.worst_layers())], "verdict": self.verdict, **plan}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`; old files have only the worst of the layers. Raises PackageCorruptError."""
        given = {"layers": data.get("worst_layers"), **data}
        own = {name: value for name, value in given.items() if name not in DERIVED}
        quality = data.get("quality")
        kind = EncoderReport if isinstance(quality, Mapping) and "output" in quality else GenerationReport
        try:
            return build(kind, own, "report")
        except Mistyped as error:
            raise corrupt(f"{REPORT_NAME} cannot be read ({error})") from error


@dataclass(frozen=True, kw_only=True)
class GenerationReport(Report):
    """The report of a model that generates."""

    quality: GenerationQuality
    thresholds: GenerationThresholds

    @property
    def passed(self) -> bool:
        q, t = self.quality, self.thresholds
        return q.kl_divergence <= t.kl_divergence and q.top1_agreement >= t.top1_agreement

    @property
    def distance(self) -> str:
        return f"KL divergence {self.quality.kl_divergence:.4g} (at most {self.thresholds.kl_divergence:g})"


@dataclass(frozen=True, kw_only=True)
class EncoderReport(Report):
    """The report of an encoder-only model."""

    quality: EncoderQuality
    thresholds: EncoderThresholds

    @property
    def passed(self) -> bool:
        q, t = self.quality, self.thresholds
        return q.error <= t.error and (q.top1_agreement is None or q.top1_agreement >= t.top1_agreement)

    @property
    def distance(self) -> str:
        return f"its {self.quality.output} differ by {self.quality.error:.2%} (at most {self.thresholds.error:.2%})"


def read_report(package: Path) -> Report | None:
    """The report in a package's directory, None where it has none. Raises PackageCorruptError."""
    data = read_json(package / REPORT_NAME)
    return Report.from_dict(data) if data else None


def write_report(package: Path, report: Report) -> None:
    (package / REPORT_NAME).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
