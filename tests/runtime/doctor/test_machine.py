"""What `edgellm doctor` reads of a machine: this one, as it is, and /proc and /sys made of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgellm.cli import cli
from edgellm.doctor.cuda import read_cuda
from edgellm.doctor.facts import (
    Cpu,
    Requirement,
)
from edgellm.doctor.machine import read_memory, read_processor
from edgellm.doctor.software import parse_requirement, read_runtimes, satisfies
from edgellm.system.cgroups import MemoryLimit, memory_limit
from fake_machine import put

MIB, GIB = 2**20, 2**30


def test_cuda_of_a_machine(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 1",
            "usr/lib/x86_64-linux-gnu/libcuda.so.1": "",
            "opt/a/libcudart.so.13": "",
            "usr/local/cuda-13.0/lib64/libcublas.so.13": "",
        },
    )
    cuda = read_cuda("13.0", tmp_path, {"LD_LIBRARY_PATH": ":/opt/a", "CUDA_VISIBLE_DEVICES": "-1"})
    assert (cuda.driver, cuda.gpus, cuda.hidden) == ("580.82.07", ("NVIDIA H100",), True)
    assert cuda.libraries["libcudart.so.13"] == str(tmp_path / "opt/a/libcudart.so.13")
    assert cuda.libraries["libcublas.so.13"] is None
    assert cuda.elsewhere == {"libcublas.so.13": str(tmp_path / "usr/local/cuda-13.0/lib64/libcublas.so.13")}
    assert read_cuda("", tmp_path, {}).libraries == {}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000",
                "sys/fs/cgroup/a/memory.current": "900",
                "sys/fs/cgroup/a/memory.stat": "anon 500\ninactive_file 300",
                "sys/fs/cgroup/a/b/memory.max": "5000",
            },
            MemoryLimit(1000, 600),
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n0::/\n",
                "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "2000",
                "sys/fs/cgroup/memory/m/memory.usage_in_bytes": "500",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            MemoryLimit(2000, 500),
        ),
    ],
)  # fmt: skip
def test_memory_of_a_control_group(tmp_path: Path, files: dict[str, Any], expected: MemoryLimit | None) -> None:
    assert memory_limit(put(tmp_path, files)) == expected


def test_memory_and_processor_of_a_machine(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 600 kB",
            "proc/cpuinfo": "processor : 0\nmodel name : A CPU\nflags : avx2 avx_vnni",
        },
    )
    memory = read_memory(tmp_path)
    assert (memory.total, memory.available) == (1024_000, 614_400)
    assert read_processor(tmp_path) == Cpu("A CPU", frozenset({"avx2", "avx_vnni"}))


def test_requirements_of_the_metadata() -> None:
    assert parse_requirement('onnx>=1.19; extra == "export"') == Requirement("onnx", ">=1.19", "export", _onnx())
    assert parse_requirement("nothing-of-that-name") == Requirement("nothing-of-that-name", "", "", None)
    assert parse_requirement('edgellm[cpu,export]; extra == "dev"') is None


def _onnx() -> str:
    from importlib.metadata import version

    return version("onnx")


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("2.1.0", ">=2", True),
        ("2.1.0", ">=2.1", True),
        ("2.1.0", ">=2.1.1", False),
        ("1.31.1", ">=1.4,<2", True),
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.0", "<2", False),
        ("1.0", "", True),
    ],
)
def test_versions(version: str, wanted: str, expected: bool) -> None:
    assert satisfies(version, wanted) == expected


def test_distributions_that_bring_onnxruntime() -> None:
    names = ["numpy", "onnxruntime", "onnxruntime_gpu", "onnxruntime-genai", "onnxruntime-extensions"]
    assert list(read_runtimes(names)) == ["onnxruntime", "onnxruntime-gpu"]


def test_this_machine(package: Path) -> None:
    result = CliRunner().invoke(cli, ["doctor", str(package)])
    assert result.exit_code == 0, result.output
    for check in ("python", "packages", "onnxruntime", "telemetry", "cuda", "processor", "threads", "memory", "disk"):
        assert f" {check} " in result.stdout
    assert "off: a session left nothing in a fresh home directory" in result.stdout
    assert "tiny, fp32 for cpu" in result.stdout
    assert "is ready" in result.stdout


def test_json(package: Path) -> None:
    found = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)
    assert found["ready"] is True
    assert {finding["severity"] for finding in found["findings"]} <= {"ok", "note", "warning"}
    assert found["facts"]["runtime"]["version"]
    assert found["facts"]["threads"]["used"] >= 1


BROKEN = {
    "absent": "raise ImportError('No module named onnxruntime')",
    "overwritten": "",
    "crashing": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
}


@pytest.mark.parametrize(("kind", "text"), BROKEN.items(), ids=BROKEN)
def test_without_a_working_onnxruntime(tmp_path: Path, kind: str, text: str) -> None:
    """Another module of that name in front of the installed one."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "edgellm", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    expected = {"absent": "No module named onnxruntime", "overwritten": "is broken", "crashing": "ended by SIGILL"}
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert expected[kind] in line
    assert "is not ready: 1 error" in done.stdout
