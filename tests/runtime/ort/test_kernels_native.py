"""The kernels' memory and threads, in C programs without ONNX Runtime and Python: every buffer ends at a page that
nobody may touch, and sanitizers look on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[3] / "kernels"
pytestmark = pytest.mark.skipif(
    not (shutil.which("cmake") and (shutil.which("gcc") or shutil.which("clang"))),
    reason="there is no cmake, or no compiler that has sanitizers",
)


def built(folder: Path, program: str, sanitize: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    options = ["-DKERNEL_TESTS=ON", f"-DSANITIZE={sanitize}", f"-DCMAKE_C_COMPILER={compiler}"]
    for command in (
        ["cmake", "-S", str(KERNELS), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", program],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    return folder / program


@pytest.mark.parametrize("program", ["linear_cases"])
@pytest.mark.parametrize(("sanitize", "cases"), [("", 300), ("address,undefined", 100), ("thread", 25)])
def test_nothing_is_touched_behind_its_end_and_by_two_threads(
    program: str, sanitize: str, cases: int, tmp_path: Path
) -> None:
    command = [str(built(tmp_path, program, sanitize)), str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr[:4000]}"
    assert done.stdout.startswith(f"{cases} cases")
