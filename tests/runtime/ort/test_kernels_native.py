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


PROGRAMS = ("linear_cases", "experts_cases", "attention_cases")
CASES = {"": 300, "address,undefined": 60, "thread": 20}


@pytest.fixture(scope="module", params=CASES, ids=lambda sanitize: sanitize or "guards")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of the programs, and how many cases they are to try."""
    folder, compiler = tmp_path_factory.mktemp("kernels"), shutil.which("gcc") or shutil.which("clang")
    options = ["-DKERNEL_TESTS=ON", f"-DSANITIZE={request.param}", f"-DCMAKE_C_COMPILER={compiler}"]
    for command in (
        ["cmake", "-S", str(KERNELS), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", *PROGRAMS],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    return folder, CASES[request.param]


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_touched_behind_its_end_and_by_two_threads(program: str, built: tuple[Path, int]) -> None:
    folder, cases = built
    done = subprocess.run([str(folder / program), str(cases)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr[:4000]}"
    assert done.stdout.startswith(f"{cases} cases")
