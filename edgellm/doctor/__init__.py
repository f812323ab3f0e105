"""What of this machine and its Python environment keeps edgellm from running, or from running fast, and what to do.

`facts` is what there is to know, as values; `machine`, `software` and `cuda` read it; the modules named `checks`
judge it, each matter in a pure function from the facts to what is to be said, and `package_checks` a package by it.
"""

from __future__ import annotations

from collections.abc import Callable

from edgellm.doctor.cuda_checks import check_cuda
from edgellm.doctor.facts import Facts, Finding
from edgellm.doctor.machine import read_facts
from edgellm.doctor.machine_checks import check_disk, check_limits, check_memory, check_processor, check_threads
from edgellm.doctor.software_checks import (
    check_extras,
    check_kernels,
    check_onnxruntime,
    check_packages,
    check_python,
    check_telemetry,
)

__all__ = ["Facts", "Finding", "examine", "read_facts"]

CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    check_python,
    check_packages,
    check_onnxruntime,
    check_kernels,
    check_telemetry,
    check_cuda,
    check_processor,
    check_threads,
    check_memory,
    check_disk,
    check_limits,
    check_extras,
)


def examine(facts: Facts) -> list[Finding]:
    """What each check says of `facts`, in the order in which a person should read it."""
    return [finding for check in CHECKS for finding in check(facts)]
