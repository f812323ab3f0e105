"""What a benchmark returns: raw times, what they were taken on, and what follows from them."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.bench.cases import Case
from edgellm.system.bandwidth import Bandwidth
from edgellm.system.cpu import processor_name
from edgellm.system.disturbance import Conditions


@dataclass(frozen=True)
class Machine:
    """What the figures depend on besides the package."""

    processor: str
    logical_cpus: int
    system: str
    python: str
    onnxruntime: str


def describe_machine(onnxruntime: str, root: Path = Path("/")) -> Machine:
    system = f"{platform.system()} {platform.machine()}"
    return Machine(processor_name(root), os.cpu_count() or 1, system, platform.python_version(), onnxruntime)


@dataclass(frozen=True)
class PackageFacts:
    """The package that was measured. A decoding step reads `step_weight_bytes` of the weights, and for each token of a
    row `cache_bytes_per_token`."""

    path: Path
    model_type: str
    precision: str
    scheme: str
    device: str
    size_bytes: int
    parameters: int
    step_weight_bytes: int
    cache_bytes_per_token: int


@dataclass(frozen=True)
class Load:
    """Milliseconds of opening a package in a new process; importing ONNX Runtime is a part of it.

    `disturbed`: as in `Conditions`.
    """

    load_ms: float
    import_ms: float
    disturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loads:
    """Loads by one number of threads. For the `cold` ones the package's files were not in memory; there are none where
    `why_not_cold` says what prevents that."""

    threads: int
    cold: tuple[Load, ...]
    warm: tuple[Load, ...]
    why_not_cold: str | None

    @property
    def cold_ms(self) -> float | None:
        """The median of the cold loads."""
        return statistics.median(load.load_ms for load in self.cold) if self.cold else None

    @property
    def warm_ms(self) -> float | None:
        """The median of the warm loads."""
        return statistics.median(load.load_ms for load in self.warm) if self.warm else None

    @property
    def disturbed(self) -> tuple[str, ...]:
        """How many loads were disturbed, and what disturbed the first of them."""
        loads = (*self.cold, *self.warm)
        disturbed = [load.disturbed for load in loads if load.disturbed]
        return (f"{len(disturbed)} of {len(loads)} loads", *disturbed[0]) if disturbed else ()


@dataclass(frozen=True)
class Repeat:
    """One timed run. `steps_s[i]` are the seconds from the rows' token i to their token i + 1, of which in all
    `onnxruntime_s` were spent inside ONNX Runtime, if it was profiled."""

    first_token_s: float
    steps_s: tuple[float, ...]
    prefill_joules: float | None = None
    decode_joules: float | None = None
    onnxruntime_s: float | None = None

    @property
    def decode_s(self) -> float:
        return math.fsum(self.steps_s)

    @property
    def total_s(self) -> float:
        return self.first_token_s + self.decode_s


@dataclass(frozen=True)
class CaseResult:
    """A case measured in a process of its own.

    `peak_rss_bytes` is that process's largest resident size, interpreter and mapped weights included,
    `import_rss_bytes` its size before the package was opened, with ONNX Runtime imported.
    """

    case: Case
    repeats: tuple[Repeat, ...]
    peak_rss_bytes: int | None
    import_rss_bytes: int | None
    conditions: Conditions

    @property
    def first_token_ms(self) -> list[float]:
        return [1000 * repeat.first_token_s for repeat in self.repeats]

    @property
    def step_ms(self) -> list[float]:
        """The time of every step of every repeat: what a user waits between two tokens."""
        return [1000 * step for repeat in self.repeats for step in repeat.steps_s]

    @property
    def prefill_tokens_per_s(self) -> list[float]:
        """The prompts' tokens a second in each repeat."""
        tokens = self.case.prompt_length * self.case.batch_size
        return [tokens / repeat.first_token_s for repeat in self.repeats]

    @property
    def decode_tokens_per_s(self) -> list[float]:
        """The new tokens a second in each repeat, all rows together: beams count like the rows of a batch."""
        return [len(repeat.steps_s) * self.case.rows / repeat.decode_s for repeat in self.repeats if repeat.steps_s]

    @property
    def total_tokens_per_s(self) -> list[float]:
        """The tokens a second in each repeat: the prompts' and all rows' new ones over the whole time."""
        case = self.case
        tokens = case.prompt_length * case.batch_size + case.generated * case.rows
        return [tokens / repeat.total_s for repeat in self.repeats]

    @property
    def decode_joules_per_token(self) -> float | None:
        """Joules for a new token of any row; None where the machine does not measure energy."""
        return _per_token(
            [repeat.decode_joules for repeat in self.repeats],
            sum(len(repeat.steps_s) for repeat in self.repeats) * self.case.rows,
        )

    @property
    def prefill_joules_per_token(self) -> float | None:
        return _per_token(
            [repeat.prefill_joules for repeat in self.repeats],
            len(self.repeats) * self.case.prompt_length * self.case.batch_size,
        )

    @property
    def total_joules_per_token(self) -> float | None:
        case, runs = self.case, [(repeat.prefill_joules, repeat.decode_joules) for repeat in self.repeats]
        tokens = len(runs) * (case.prompt_length * case.batch_size + case.generated * case.rows)
        return _per_token([joules for run in runs for joules in run], tokens)

    @property
    def outside_onnxruntime(self) -> float | None:
        """The share of the decoding time that is not ONNX Runtime's; None where it was not profiled."""
        inside = [repeat.onnxruntime_s for repeat in self.repeats if repeat.onnxruntime_s is not None]
        total = math.fsum(repeat.decode_s for repeat in self.repeats)
        return 1 - math.fsum(inside) / total if inside and total else None

    def step_bytes(self, package: PackageFacts) -> float | None:
        """What an average step must read: the weights once, and of each row the cache in use."""
        if not self.case.new_tokens:
            return None
        context = self.case.prompt_length + self.case.generated / 2
        return package.step_weight_bytes + self.case.rows * context * package.cache_bytes_per_token

    def token_bytes(self, package: PackageFacts) -> float | None:
        """`step_bytes` shared among the rows that read together."""
        step_bytes = self.step_bytes(package)
        return None if step_bytes is None else step_bytes / self.case.rows

    def share_of_bandwidth(self, package: PackageFacts, bandwidth: Bandwidth | None) -> float | None:
        """How close decoding is to the limit that reading sets: 1 is as fast as this machine reads memory."""
        read, steps = self.step_bytes(package), self.step_ms
        if read is None or not steps or bandwidth is None:
            return None
        return read / (math.fsum(steps) / len(steps) / 1000) / bandwidth.bytes_per_s


@dataclass(frozen=True)
class BenchResult:
    """All of a benchmark. `loads` and `bandwidths` have an entry per thread count, unless `why_no_bandwidth` says why.

    `energy`: what energy was measured with, or why it was not.
    """

    machine: Machine
    package: PackageFacts
    cases: tuple[CaseResult, ...]
    loads: tuple[Loads, ...]
    bandwidths: tuple[Bandwidth, ...]
    why_no_bandwidth: str | None
    energy: str

    def loads_with(self, threads: int) -> Loads | None:
        return next((loads for loads in self.loads if loads.threads == threads), None)

    def bandwidth_with(self, threads: int) -> Bandwidth | None:
        return next((bandwidth for bandwidth in self.bandwidths if bandwidth.threads == threads), None)


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample's standard deviation, 0 for a single value, as llama-bench has it."""
    if not values:
        return None
    return statistics.stdev(values) if len(values) > 1 else 0.0


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The percentile with linear interpolation; None for no values."""
    return float(np.percentile(values, percent)) if values else None


def _per_token(joules: Sequence[float | None], tokens: int) -> float | None:
    known = [each for each in joules if each is not None]
    return math.fsum(known) / tokens if tokens and len(known) == len(joules) else None
