"""What the facts mean. Each check is a pure function from the facts to what is to be said of one matter."""

from __future__ import annotations

from collections.abc import Callable

from edgellm.doctor.cuda_checks import check_cuda
from edgellm.doctor.facts import Facts
from edgellm.doctor.findings import Finding
from edgellm.doctor.machine_checks import check_disk, check_limits, check_memory, check_processor, check_threads
from edgellm.doctor.software_checks import (
    check_extras,
    check_onnxruntime,
    check_packages,
    check_python,
    check_telemetry,
)

CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    check_python,
    check_packages,
    check_onnxruntime,
    check_telemetry,
    check_cuda,
    check_processor,
    check_threads,
    check_memory,
    check_disk,
    check_limits,
    check_extras,
)
