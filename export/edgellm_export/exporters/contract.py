"""What the exporters of all kinds of model share: the caller's choices, and what each hands back to the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from edgellm.errors import ExportError
from edgellm.package.manifest import KVCacheType, Manifest, Precision, Target, Task
from edgellm.package.report import Report
from edgellm.types import Progress
from edgellm_export.calibration.mixing import Budget
from edgellm_export.calibration.texts import CalibrationText
from edgellm_export.onnx.builder import Projection

GlobalAttention = Literal["none", "first"]


@dataclass(frozen=True)
class Choices:
    """What the caller of `export` chose. `text`: to calibrate with, even where `calibrate` says not to round weights by
    it. `task`: None is the checkpoint's own. `attentions`: the package can give its attention weights. `budget`: of
    mixed precision, and of no other. `global_attention`: of an encoder-decoder whose tokens see those nearby."""

    precision: Precision
    target: Target
    kv_cache: KVCacheType
    task: Task | None
    calibrate: bool
    text: CalibrationText
    attentions: bool = False
    budget: Budget | None = None
    global_attention: GlobalAttention = "none"


def check_global_attention(choices: Choices) -> None:
    """Raises ExportError where it is asked of a model that has none."""
    if choices.global_attention != "none":
        raise ExportError("global attention is LED's, whose tokens see only those nearby; leave out --global-attention")


@dataclass(frozen=True)
class Written:
    """A package directory that lacks its hashes and its report. `verify`: compare the package, once it can be loaded,
    with the original; it gets the sealed manifest."""

    manifest: Manifest
    verify: Callable[[Manifest[Any]], Report]


@dataclass(frozen=True)
class Outline:
    """`manifest`: lacks its files. `projections`: the linear layers of all graphs. `calibrates`: text will decide how
    they are rounded."""

    manifest: Manifest
    projections: Sequence[Projection]
    calibrates: bool


class Exporter(Protocol):
    """A checkpoint whose config has been read, and found to be one that edgellm builds, with the caller's choices."""

    def write(self, work: Path, progress: Progress) -> Written:
        """Everything but manifest and report into the directory `work`, which has the tokenizer's files already."""


class ForeseenExporter(Exporter, Protocol):
    """One that knows its graphs before they are made."""

    def outline(self, work: Path) -> Outline:
        """What `write` is expected to put into `work`, before any work: the weights' files have their size and no
        content."""
