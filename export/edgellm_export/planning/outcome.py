"""What was foreseen of an export beside what happened, for the package's report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgellm.package.manifest import MANIFEST_NAME
from edgellm.package.report import REPORT_NAME, ExportOutcome, Foreseen
from edgellm.system.memory import peak_memory_bytes
from edgellm_export.planning.prediction import Prediction
from edgellm_export.planning.work_time import measured_speed, seconds


@dataclass(frozen=True)
class Watch:
    """Sees what an export takes; it begins before the work. `prediction` is None where nothing was foreseen,
    `peak_before`, in bytes, where the system does not say."""

    prediction: Prediction | None
    peak_before: int | None
    started: float

    @classmethod
    def start(cls, prediction: Prediction | None) -> Watch:
        return cls(prediction, peak_memory_bytes(), time.perf_counter())

    def stop(self, package: Path) -> ExportOutcome | None:
        """The outcome, asked when all but report and manifest are final in the directory `package`; None where nothing
        was foreseen."""
        foreseen, duration = self.prediction, time.perf_counter() - self.started
        if foreseen is None:
            return None
        peak = peak_memory_bytes()
        grown = peak is not None and self.peak_before is not None and peak > self.peak_before
        return ExportOutcome(
            size_bytes=Foreseen(foreseen.size, _size(package, foreseen)),
            peak_memory_bytes=Foreseen(foreseen.peak, peak if grown else None),
            seconds=Foreseen(seconds(foreseen.work, foreseen.size, measured_speed()), duration),
        )


def _size(package: Path, foreseen: Prediction) -> int:
    """The package's bytes, with those foreseen for the manifest and the report, which are not there yet."""
    files = {p.relative_to(package).as_posix(): p for p in package.rglob("*") if p.is_file()}
    later = {name: count for name, count in foreseen.files.items() if name in (MANIFEST_NAME, REPORT_NAME)}
    return sum(path.stat().st_size for name, path in files.items() if name not in later) + sum(later.values())
