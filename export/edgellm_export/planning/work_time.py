"""How long an export takes: what it computes, by rates of one machine, and how fast this one is beside that.

The rates are from exports of SmolLM2-135M, MiniLM and Qwen2.5-0.5B's shape on two idle cores of an AMD EPYC with AVX512
(benchmarks/plan.py); a checkpoint whose layers are easier or harder to round takes up to a third less or more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from edgellm.package.layouts import INTEGERS
from edgellm_export.calibration.mixing import SHARES, TRIES
from edgellm_export.exporters.decoder import WEIGHTS_TOKENS
from edgellm_export.planning.work_memory import Work, compared_outputs, compared_rows
from edgellm_export.quantize.calibrated import SPREAD_COLUMNS, SPREAD_TOKENS

MEGA, GIGA = 1e6, 1e9
# Seconds on the machine of the rates.
START = 0.7
MEASURING = 0.03  # for a million weights: their errors, and the float run over the text
SPREADING = 0.07  # for 10^9 of rows x columns^2
INVERTING = 0.1  # for 10^9 of columns^3
ROUNDING = 0.02  # for a million weights that are not calibrated
WRITING = 0.004  # for a million bytes, with their hashes and the package's load
RUNNING = 0.011  # for 10^9 of tokens x weights x 2: the original in float32, and the package
COMPARING = 0.012  # for a million logits
PROBE_S, PROBE_FLOPS = 0.0349 / 8, 2 * 768**3  # a matrix product in float32
PROBE_TRIES = 30


@dataclass(frozen=True)
class Speed:
    """How fast a machine is: operations a second of numpy's float32 matrix product."""

    flops: float

    @property
    def factor(self) -> float:
        """How many times faster this is than the machine of the rates."""
        return self.flops / (PROBE_FLOPS / PROBE_S)


@cache
def measured_speed() -> Speed:
    """This machine's speed, measured for a tenth of a second, once in a process."""
    matrix = np.random.default_rng(0).random((768, 768), np.float32)
    return Speed(PROBE_FLOPS / min(_seconds(lambda: matrix @ matrix) for _ in range(PROBE_TRIES)))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def seconds(work: Work, size_bytes: int, speed: Speed) -> float:
    """How long the whole export takes, without a download."""
    weights = sum(matrix.elements for matrix in work.matrices)
    total = START + WRITING * size_bytes / MEGA + ROUNDING * work.embedding / MEGA
    if work.calibrates:
        total += MEASURING * weights / MEGA + _spreading(work)
    elif work.manifest.weights.precision in INTEGERS:
        total += ROUNDING * weights / MEGA
    if work.manifest.weights.precision == "mixed":
        total += _mixing(work, weights)
    if work.verifies:
        rows = compared_rows(work.manifest)
        logits = rows * compared_outputs(work.manifest)
        total += RUNNING * 2 * rows * work.multiplied / GIGA + COMPARING * logits / MEGA
    return total / speed.factor


def _mixing(work: Work, weights: int) -> float:
    """The seconds of rounding to the second form, and of a run for each mixture that is measured."""
    runs = len(SHARES) + TRIES / 2
    rows = compared_rows(work.manifest)
    compared = COMPARING * rows * compared_outputs(work.manifest) / MEGA
    return (
        2 * MEASURING * weights / MEGA + _spreading(work) + runs * (RUNNING * rows * work.multiplied / GIGA + compared)
    )


def _spreading(work: Work) -> float:
    """The seconds of rounding that makes up for its errors, which int8 leaves out for many columns."""
    int8 = work.manifest.weights.precision == "int8"
    enough = [m for m in work.matrices if m.share * WEIGHTS_TOKENS >= SPREAD_TOKENS]
    matrices = [m for m in enough if not int8 or m.columns <= SPREAD_COLUMNS]
    return sum(SPREADING * m.rows * m.columns**2 + INVERTING * m.columns**3 for m in matrices) / GIGA
