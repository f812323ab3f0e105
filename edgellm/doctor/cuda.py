"""NVIDIA's driver, its GPUs, and the CUDA libraries that the loader would find; nothing is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgellm.doctor.facts import Cuda
from edgellm.system.sysfs import find, read_text

DRIVER = "libcuda.so.1"  # of the driver, not of CUDA
CUFFT = {"12": "11", "13": "12"}  # its version by CUDA's
# Without these ONNX Runtime's CUDA provider does not start; the others it loads when an operator needs them.
ESSENTIAL = ("libcuda.", "libcudart.", "libcublas.", "libcublasLt.", "libcurand.")
DEFAULT_DIRECTORIES = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")
TOOLKITS = ("usr/local/cuda*/lib64", "usr/local/cuda*/targets/*/lib", "usr/lib/wsl/lib", "opt/cuda/lib64")


def libraries(cuda: str) -> tuple[str, ...]:
    """What ONNX Runtime 1.31, built for that version of CUDA, loads."""
    major = cuda.partition(".")[0]
    of_toolkit = (f"lib{name}.so.{major}" for name in ("cudart", "cublas", "cublasLt", "nvrtc"))
    return (DRIVER, *of_toolkit, "libcurand.so.10", f"libcufft.so.{CUFFT.get(major, major)}", "libcudnn.so.9")


def is_essential(library: str) -> bool:
    return library.startswith(ESSENTIAL)


def read_cuda(built_for: str, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Cuda:
    """What there is of NVIDIA's. `built_for`: the version of CUDA that ONNX Runtime was built for; "" looks for no
    libraries."""
    wanted = libraries(built_for) if built_for else ()
    usual = [root / place for place in DEFAULT_DIRECTORIES]
    found = _among(wanted, [*_wheels(), *_loader_path(root, environment), *usual]) | _cached(root, wanted)
    return Cuda(
        driver=_driver(root),
        gpus=tuple(_gpus(root)),
        hidden=environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
        libraries={name: found.get(name) for name in wanted},
        elsewhere=_among([n for n in wanted if n not in found], [p for t in TOOLKITS for p in find(root, t)]),
    )


def _driver(root: Path) -> str | None:
    text = read_text(root / "proc/driver/nvidia/version") or ""
    match = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    return match.group(1) if match else None


def _gpus(root: Path) -> list[str]:
    """The GPUs' names, or where the driver's directory is not to be seen, as in some containers, their device files."""
    texts = [read_text(path) or "" for path in find(root, "proc/driver/nvidia/gpus/*/information")]
    names = [match.group(1).strip() for text in texts if (match := re.search(r"Model:(.*)", text))]
    return names or [path.name for path in find(root, "dev/nvidia[0-9]*")]


def _wheels() -> list[Path]:
    """The directories where NVIDIA's wheels put libraries, and where ONNX Runtime looks first."""
    return [path for place in sys.path if place for path in find(Path(place), "nvidia/*/lib")]


def _loader_path(root: Path, environment: Mapping[str, str]) -> list[Path]:
    places = [place for place in environment.get("LD_LIBRARY_PATH", "").split(":") if place]
    return [root / place.lstrip("/") for place in places]


def _among(wanted: Iterable[str], directories: Iterable[Path]) -> dict[str, str]:
    """The first place of each library that is in one of the directories."""
    places = list(directories)
    found = {name: next((p / name for p in places if (p / name).exists()), None) for name in wanted}
    return {name: str(path) for name, path in found.items() if path is not None}


def _cached(root: Path, wanted: Iterable[str]) -> dict[str, str]:
    """The libraries that the loader's cache knows, if `root` is this machine's."""
    if root != Path("/"):
        return {}
    try:
        listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = [line.split() for line in listed.stdout.splitlines() if " => " in line]
    known = {fields[0]: fields[-1] for fields in reversed(lines)}
    return {name: known[name] for name in wanted if name in known}
