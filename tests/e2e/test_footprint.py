"""The estimate of a package's memory, beside what a process of its own takes on Linux."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgellm.inspection.footprint import footprint
from edgellm.loading import read_package

CONTEXT = 1024
GENERATE = f"""
import sys
import edgellm
from edgellm.system.memory import peak_memory_bytes

model = edgellm.load(sys.argv[1], threads=2)
prompt = [(7 * i) % 40000 + 300 for i in range({CONTEXT - 8})]
model.generate(prompt, max_new_tokens=8, min_new_tokens=8)
print(peak_memory_bytes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calibrated on Linux")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_memory_of_a_real_model(precision: str, smollm2_package: Callable[[str], Path]) -> None:
    path = smollm2_package(precision)
    package, manifest = read_package(path)
    estimate = footprint(package, manifest, CONTEXT).total
    measured = int(subprocess.check_output([sys.executable, "-c", GENERATE, str(path)], text=True))
    assert estimate == pytest.approx(measured, rel=0.15)
