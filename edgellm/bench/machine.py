"""Names of what the figures were taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgellm.bench.results import Machine
from edgellm.system.sysfs import read_text


def describe_machine(onnxruntime: str, root: Path = Path("/")) -> Machine:
    system = f"{platform.system()} {platform.machine()}"
    return Machine(processor_name(root), os.cpu_count() or 1, system, platform.python_version(), onnxruntime)


def processor_name(root: Path) -> str:
    """x86 names it in cpuinfo, ARM boards name themselves in the device tree."""
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    board = (read_text(root / "proc/device-tree/model") or "").rstrip("\0")
    return next(names, "") or board or platform.processor() or "unknown processor"
