"""Everything that needs a CUDA device, in one call: the tests marked `cuda`, then packages and their speed.

    python benchmarks/cuda.py [--gguf FILE] [--out DIRECTORY]

Runs in an environment with onnxruntime-gpu and this project's dependencies; nothing is fetched. Without a device it
says what is missing and measures nothing. Exports SmolLM2 for CUDA as fp16, int8 and int4, compared with the original
on the device, then runs `edgellm bench` on each; its JSON lines also stay in DIRECTORY.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GGUF = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PRECISIONS = ("fp16", "int8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, default=GGUF)
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "cuda")
    arguments = parser.parse_args()
    _check_device()
    arguments.out.mkdir(parents=True, exist_ok=True)
    statuses = [_run("tests", sys.executable, "-m", "pytest", "-q", "-m", "cuda", str(ROOT / "tests"))]
    for precision in PRECISIONS:
        package = arguments.out / precision
        options = ("--precision", precision, "--target", "cuda", "--force")
        statuses.append(_run(f"export {precision}", *_edgellm("export"), str(arguments.gguf), str(package), *options))
        sweep = ("--device", "cuda", "-p", "128,512", "-n", "64", "-b", "1,4", "--output", "jsonl")
        print(f"== bench {precision}", flush=True)
        timed = subprocess.run(
            [*_edgellm("bench"), str(package), *sweep], stdout=subprocess.PIPE, text=True, check=False
        )
        print(timed.stdout)
        (arguments.out / f"{precision}.jsonl").write_text(timed.stdout)
        statuses.append(timed.returncode)
    sys.exit(max(statuses))


def _check_device() -> None:
    """Ends with one line where the package would not run on CUDA."""
    from edgellm.errors import EdgellmError
    from edgellm.ort.library import choose_device

    try:
        choose_device("cuda", "cuda")
    except EdgellmError as error:
        raise SystemExit(f"no CUDA: {error}") from error


def _edgellm(command: str) -> tuple[str, ...]:
    return sys.executable, "-m", "edgellm", command


def _run(name: str, *command: str) -> int:
    print(f"== {name}", flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    main()
