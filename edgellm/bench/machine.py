"""What the figures of a benchmark were taken on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from edgellm.system.cpu import processor_name


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
