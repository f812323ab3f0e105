"""What was foreseen of an export beside what happened; it ends up in the package's report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.package.manifest import MANIFEST_NAME
from edgellm.system.memory import peak_memory_bytes
from edgellm_export.planning.prediction import Prediction
from edgellm_export.planning.work_time import measured_speed, seconds
from edgellm_export.verification.report import REPORT_NAME


@dataclass(frozen=True)
class Compared:
    """`actual`: None where it is not known."""

    predicted: float
    actual: float | None

    @property
    def share(self) -> float | None:
        """Of what was predicted; 1 is as foreseen."""
        return None if self.actual is None else self.actual / self.predicted


@dataclass(frozen=True)
class Outcome:
    """`peak_memory_bytes`: of the process, known where the export took more than all that was before it."""

    size_bytes: Compared
    peak_memory_bytes: Compared
    seconds: Compared


@dataclass(frozen=True)
class Watch:
    """Begins before the work. `prediction`: None where nothing was foreseen. `peak_before`: bytes, None where the
    system does not say."""

    prediction: Prediction | None
    peak_before: int | None
    started: float

    @classmethod
    def start(cls, prediction: Prediction | None) -> Watch:
        return cls(prediction, peak_memory_bytes(), time.perf_counter())

    def stop(self, package: Path) -> Outcome | None:
        """Once all but report and manifest are final in the directory `package`."""
        foreseen, duration = self.prediction, time.perf_counter() - self.started
        if foreseen is None:
            return None
        peak = peak_memory_bytes()
        grown = peak is not None and self.peak_before is not None and peak > self.peak_before
        return Outcome(
            size_bytes=Compared(foreseen.size, _size(package, foreseen)),
            peak_memory_bytes=Compared(foreseen.peak, peak if grown else None),
            seconds=Compared(seconds(foreseen.work, foreseen.size, measured_speed()), duration),
        )


def _size(package: Path, foreseen: Prediction) -> int:
    """The manifest and the report as they were foreseen, for they are not there yet."""
    files = {p.relative_to(package).as_posix(): p for p in package.rglob("*") if p.is_file()}
    later = {name: count for name, count in foreseen.files.items() if name in (MANIFEST_NAME, REPORT_NAME)}
    return sum(path.stat().st_size for name, path in files.items() if name not in later) + sum(later.values())


def add_outcome(package: Path, outcome: Outcome | None) -> None:
    """To the report of `package`, as its "plan"."""
    path = package / REPORT_NAME
    if outcome is not None:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**report, "plan": asdict(outcome)}, indent=2) + "\n", encoding="utf-8")
