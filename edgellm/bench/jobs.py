"""What the measuring process is asked, and what it answers: dataclasses that travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.cases import Case
from edgellm.bench.results import CaseResult, Load, Repeat
from edgellm.ort.library import DeviceChoice
from edgellm.package.manifest import KVCacheChoice
from edgellm.system.disturbance import Conditions


@dataclass(frozen=True)
class Job:
    """Open `package` and, if there is a `case`, run it once to warm up and then `repeats` times."""

    package: Path
    device: DeviceChoice
    threads: int
    case: Case | None = None
    repeats: int = 0
    profile: bool = False
    kv_cache: KVCacheChoice = "auto"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "package": str(self.package)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        case = None if data["case"] is None else Case(**data["case"])
        return cls(**{**data, "package": Path(data["package"]), "case": case})


@dataclass(frozen=True)
class JobResult:
    """What came of a job: `result` is there if the job had a case, `device` is where the package ran, and `energy` is
    as in `BenchResult`."""

    load: Load
    device: str
    onnxruntime: str
    energy: str
    result: CaseResult | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobResult:
        result = data["result"]
        load = Load(**{**data["load"], "disturbed": tuple(data["load"]["disturbed"])})
        return cls(**{**data, "load": load, "result": None if result is None else _case_result(result)})


def _case_result(data: Mapping[str, Any]) -> CaseResult:
    repeats = tuple(Repeat(**{**repeat, "steps_s": tuple(repeat["steps_s"])}) for repeat in data["repeats"])
    conditions = Conditions(**{**data["conditions"], "disturbed": tuple(data["conditions"]["disturbed"])})
    return CaseResult(**{**data, "case": Case(**data["case"]), "repeats": repeats, "conditions": conditions})
