"""What a package and transformers agree and differ in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import QualityGateError

EXAMPLES = 3  # differences of a kind that are told


@dataclass(frozen=True)
class Check:
    """What was compared, of how many `unit`s, and what differs, in words. `error`: of numbers, the size of the
    difference relative to theirs."""

    name: str
    count: int
    unit: str
    differences: tuple[str, ...] = ()
    error: float | None = None

    @property
    def line(self) -> str:
        counted = f"{self.count} {self.unit}" + (f", relative error {self.error:.1e}" if self.error is not None else "")
        if not self.differences:
            return f"{counted}: the same"
        more = len(self.differences) - EXAMPLES
        return f"{counted}: {'; '.join(self.differences[:EXAMPLES])}" + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Findings:
    """`version`: of transformers. `model_class`: as what it read the checkpoint. `notes`: what could not be
    compared."""

    version: str
    model_class: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def differing(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.differences)

    @property
    def summary(self) -> str:
        """What differs, for an error."""
        return "; ".join(f"{check.name}, {check.line}" for check in self.differing)

    def to_dict(self) -> dict[str, Any]:
        checks = {
            check.name: {
                "count": check.count,
                "unit": check.unit,
                "error": check.error,
                "differences": list(check.differences),
            }
            for check in self.checks
        }
        return {
            "transformers": self.version,
            "class": self.model_class,
            "same": not self.differing,
            "checks": checks,
            "notes": list(self.notes),
        }


def gate_findings(findings: Findings, kept: Path | None = None) -> None:
    """Raises QualityGateError where anything differs. `kept`: where the package will be for a look."""
    if findings.differing:
        where = "" if kept is None else f"; look at {kept}"
        raise QualityGateError(
            f"the package is not what transformers {findings.version} makes of the checkpoint: "
            f"{findings.summary}{where}"
        )
