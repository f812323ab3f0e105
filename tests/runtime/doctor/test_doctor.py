"""`edgellm doctor`: machines that do not exist, as values; this one, as it is; and /proc and /sys made of files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgellm.cli import cli
from edgellm.doctor import Facts, Finding, examine
from edgellm.doctor.cuda import libraries
from edgellm.doctor.facts import (
    Cpu,
    Cuda,
    Directory,
    Interpreter,
    Limits,
    Memory,
    Requirement,
    Runtime,
    Telemetry,
    Threads,
)
from edgellm.doctor.package_checks import check_instructions, check_provider, check_room, examine_package
from edgellm.inspection.footprint import Footprint
from edgellm.package.files import read_manifest

MIB, GIB = 2**20, 2**30
CPU_ONLY = ("AzureExecutionProvider", "CPUExecutionProvider")
WITH_CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")
X86 = frozenset({"avx2", "fma", "f16c", "avx512f", "avx512_vnni"})
HEALTHY = Facts(
    interpreter=Interpreter((3, 11, 9), "CPython", 64, "Linux", "x86_64", "glibc 2.36"),
    requirements=(
        Requirement("numpy", ">=1.26", "", "2.4.6"),
        Requirement("onnxruntime", ">=1.31", "cpu", "1.31.1"),
        Requirement("onnx", ">=1.19", "export", "1.22.0"),
    ),
    runtimes={"onnxruntime": "1.31.1"},
    runtime=Runtime("1.31.1", CPU_ONLY, kernels=("avx2", "scalar")),
    cuda=Cuda(),
    processor=Cpu("A processor", X86),
    threads=Threads(4, 4, None, 4),
    memory=Memory(16 * GIB, 12 * GIB),
    places=(Directory("working directory", "/home/a", 50 * GIB, 1), Directory("temporary files", "/tmp", 50 * GIB, 1)),
)
BARE = replace(HEALTHY, runtimes={}, runtime=Runtime(None, error="No module named 'onnxruntime'"))
ALL_CUDA: dict[str, str | None] = {name: f"/usr/lib/{name}" for name in libraries("13.0")}
GPU = Cuda("580.82", ("NVIDIA L4",), libraries=ALL_CUDA)
ON_GPU = replace(
    HEALTHY,
    runtimes={"onnxruntime-gpu": "1.31.1"},
    runtime=Runtime("1.31.1", WITH_CUDA, cuda="13.0", kernels=("avx2", "scalar")),
    cuda=GPU,
)
BROKEN_CUDA = replace(ON_GPU.runtime, cuda_error="it could not start its CUDA provider")


def without(*names: str) -> dict[str, str | None]:
    return {name: None if name in names else path for name, path in ALL_CUDA.items()}


def worst_of(facts: Facts) -> Finding:
    order = ["ok", "note", "warning", "error"]
    return max(examine(facts), key=lambda finding: order.index(finding.severity))


def test_a_healthy_machine_has_nothing_to_fix() -> None:
    for facts in (HEALTHY, ON_GPU):
        assert {finding.severity for finding in examine(facts)} == {"ok"}
        assert not any(finding.fix for finding in examine(facts))


SICK = {
    "an old python": (
        replace(HEALTHY, interpreter=replace(HEALTHY.interpreter, version=(3, 10, 4))),
        ("error", "python", "3.10.4", "3.11 or newer"),
    ),
    "32 bits": (
        replace(HEALTHY, interpreter=replace(HEALTHY.interpreter, bits=32)),
        ("error", "python", "32 bits", "64-bit"),
    ),
    "pypy": (
        replace(HEALTHY, interpreter=replace(HEALTHY.interpreter, implementation="PyPy")),
        ("warning", "python", "PyPy", "CPython"),
    ),
    "an old numpy": (
        replace(HEALTHY, requirements=(Requirement("numpy", ">=1.26", "", "1.24.4"),)),
        ("error", "packages", "numpy is 1.24.4, wanted is >=1.26", "pip install --upgrade edgellm"),
    ),
    "no exporter": (
        replace(HEALTHY, requirements=(Requirement("onnx", ">=1.19", "export", None),)),
        ("note", "extras", "export: onnx is missing", "pip install 'edgellm[export]'"),
    ),
    "no onnxruntime": (
        BARE,
        ("error", "onnxruntime", "not installed", "pip install edgellm[cpu]"),
    ),
    "no onnxruntime for musl": (
        replace(BARE, interpreter=replace(HEALTHY.interpreter, libc="")),
        ("error", "onnxruntime", "not installed", "Alpine"),
    ),
    "no onnxruntime for an old glibc": (
        replace(BARE, interpreter=replace(HEALTHY.interpreter, libc="glibc 2.17")),
        ("error", "onnxruntime", "not installed", "older than 2.28"),
    ),
    "a distribution without its module": (
        replace(HEALTHY, runtime=Runtime(None, error="No module named 'onnxruntime'")),
        ("error", "onnxruntime", "onnxruntime 1.31.1 does not work", "--force-reinstall --no-deps onnxruntime`"),
    ),
    "onnxruntime crashes": (
        replace(HEALTHY, runtime=Runtime(None, error="the process that imported it was ended by SIGILL")),
        ("error", "onnxruntime", "ended by SIGILL", "lacks instructions"),
    ),
    "an old onnxruntime": (
        replace(HEALTHY, runtime=Runtime("1.20.1", CPU_ONLY)),
        ("error", "onnxruntime", "1.20.1 is older", "pip install --upgrade onnxruntime"),
    ),
    "no kernels": (
        replace(HEALTHY, runtime=Runtime("1.31.1", CPU_ONLY, kernels_error="edgellm-kernels is not installed")),
        ("note", "kernels", "slower: edgellm-kernels is not installed", "pip install edgellm-kernels"),
    ),
    "kernels of another machine": (
        replace(HEALTHY, runtime=replace(HEALTHY.runtime, kernels_error="the variable EDGELLM_KERNELS is 'neon'")),
        ("error", "kernels", "EDGELLM_KERNELS is 'neon'", "unset EDGELLM_KERNELS"),
    ),
    "both onnxruntimes": (
        replace(HEALTHY, runtimes={"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}),
        ("warning", "onnxruntime", "overwritten", "pip uninstall onnxruntime onnxruntime-gpu"),
    ),
    "both onnxruntimes, and broken": (
        replace(
            HEALTHY,
            runtimes={"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"},
            runtime=Runtime(None, error="the installed onnxruntime is broken"),
        ),
        ("error", "onnxruntime", "does not work", "pip uninstall onnxruntime onnxruntime-gpu"),
    ),
    "telemetry": (
        replace(HEALTHY, runtime=replace(HEALTHY.runtime, telemetry_files=(".cache/deviceid",))),
        ("error", "telemetry", ".cache/deviceid", "export ORT_DISABLE_TELEMETRY=1"),
    ),
    "telemetry of others": (
        replace(HEALTHY, telemetry=Telemetry(None, ("/home/a/.cache/Microsoft",))),
        ("note", "telemetry", "another program", "export ORT_DISABLE_TELEMETRY=1"),
    ),
    "a GPU not used": (
        replace(HEALTHY, cuda=Cuda("580.82", ("NVIDIA L4",))),
        ("note", "cuda", "NVIDIA L4 is not used", "pip install 'edgellm[cuda]'"),
    ),
    "CUDA without a GPU": (
        replace(ON_GPU, runtime=BROKEN_CUDA, cuda=Cuda(libraries=without("libcuda.so.1"))),
        ("warning", "cuda", "no GPU, driver not found", "--gpus all"),
    ),
    "an old driver": (
        replace(ON_GPU, runtime=BROKEN_CUDA, cuda=replace(GPU, driver="535.104")),
        ("warning", "cuda", "does not start", "needs driver 580 or newer, this is 535.104"),
    ),
    "hidden GPUs": (
        replace(ON_GPU, runtime=BROKEN_CUDA, cuda=replace(GPU, hidden=True)),
        ("warning", "cuda", "does not start", "unset CUDA_VISIBLE_DEVICES"),
    ),
    "no cuDNN": (
        replace(ON_GPU, cuda=replace(GPU, libraries=without("libcudnn.so.9"))),
        ("note", "cuda", "needed by some operators only: libcudnn.so.9", "onnxruntime-gpu[cuda,cudnn]"),
    ),
    "no AVX2": (
        replace(HEALTHY, processor=Cpu("An Atom", frozenset({"sse4_2"}))),
        ("warning", "processor", "no AVX2", "smaller model"),
    ),
    "no VNNI": (
        replace(HEALTHY, processor=Cpu("A Haswell", frozenset({"avx2", "fma", "f16c"}))),
        ("warning", "processor", "avx2, fma, f16c; no VNNI", "int4"),
    ),
    "a Raspberry Pi 4": (
        replace(
            HEALTHY,
            interpreter=replace(HEALTHY.interpreter, machine="aarch64"),
            processor=Cpu("Raspberry Pi 4", frozenset({"fp", "asimd", "crc32"})),
        ),
        ("warning", "processor", "no dot products", "ARMv8.2"),
    ),
    "half a CPU": (
        replace(HEALTHY, threads=Threads(4, 4, 0.5, 1)),
        ("warning", "threads", "0.5 CPUs by the control group's quota", "--cpus 1"),
    ),
    "a quota": (
        replace(HEALTHY, threads=Threads(8, 8, 2.5, 2)),
        ("note", "threads", "2 by default, of 8 CPUs", "docker: --cpus"),
    ),
    "an affinity mask": (
        replace(HEALTHY, threads=Threads(8, 1, None, 1)),
        ("note", "threads", "1 in the affinity mask", "taskset"),
    ),
    "little memory": (
        replace(HEALTHY, memory=Memory(GIB, 300 * MIB)),
        ("warning", "memory", "300.0 MiB free", "small models"),
    ),
    "a full container": (
        replace(HEALTHY, memory=Memory(64 * GIB, 60 * GIB, limit=512 * MIB, used=450 * MIB)),
        ("error", "memory", "62.0 MiB free of 64.00 GiB, 512.0 MiB allowed", "container's limit"),
    ),
    "ulimit -v": (
        replace(HEALTHY, memory=Memory(16 * GIB, 12 * GIB, address_space=2 * GIB)),
        ("warning", "memory", "limited to 2.00 GiB", "ulimit -v unlimited"),
    ),
    "a full disk": (
        replace(HEALTHY, places=(Directory("working directory", "/home/a", 100 * MIB, 1),)),
        ("warning", "disk", "100.0 MiB free: working directory /home/a", "free some"),
    ),
    "a read-only place": (
        replace(HEALTHY, places=(Directory("working directory", "/", 50 * GIB, 1, writable=False),)),
        ("note", "disk", "cannot be written to", "permissions"),
    ),
    "ulimit -f": (replace(HEALTHY, limits=Limits(file_size=GIB)), ("warning", "limits", "1.00 GiB", "ulimit -f")),
    "ulimit -n": (replace(HEALTHY, limits=Limits(open_files=16)), ("warning", "limits", "16 files", "ulimit -n")),
    "ulimit -t": (replace(HEALTHY, limits=Limits(cpu_seconds=60)), ("warning", "limits", "60 seconds", "ulimit -t")),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "expected"), SICK.values(), ids=SICK)
def test_each_problem_is_named_with_what_to_do(facts: Facts, expected: tuple[str, str, str, str]) -> None:
    severity, check, message, fix = expected
    found = worst_of(facts)
    assert (found.severity, found.check) == (severity, check)
    assert message in found.message
    assert fix in found.fix


def test_every_problem_has_a_fix() -> None:
    for facts, _ in SICK.values():
        findings = examine(facts)
        assert all(finding.fix for finding in findings if finding.severity in ("warning", "error"))
        assert not any("{" in finding.fix + finding.message for finding in findings)


def test_cuda_libraries_found_and_missing_are_listed() -> None:
    cuda = replace(GPU, libraries=without("libcublas.so.13", "libcudnn.so.9"))
    facts = replace(ON_GPU, runtime=BROKEN_CUDA, cuda=cuda)
    messages = [finding.message for finding in examine(facts) if finding.check == "cuda"]
    assert "found libcuda.so.1, libcudart.so.13, libcublasLt.so.13" in messages[1]
    assert messages[2] == "missing: libcublas.so.13"
    assert messages[3] == "missing, and needed by some operators only: libcudnn.so.9"


def test_libraries_beside_the_loaders_path() -> None:
    cuda = replace(
        GPU,
        libraries=without("libcublas.so.13"),
        elsewhere={"libcublas.so.13": "/usr/local/cuda-13.0/lib64/libcublas.so.13"},
    )
    finding = worst_of(replace(ON_GPU, runtime=BROKEN_CUDA, cuda=cuda))
    fixes = [f.fix for f in examine(replace(ON_GPU, runtime=BROKEN_CUDA, cuda=cuda))]
    assert finding.severity == "warning"
    assert any("LD_LIBRARY_PATH=/usr/local/cuda-13.0/lib64" in fix for fix in fixes)


def test_arm_with_dot_products_is_fine() -> None:
    processor = Cpu("A Neoverse", frozenset({"asimd", "asimddp", "i8mm", "sve", "bf16"}))
    facts = replace(HEALTHY, interpreter=replace(HEALTHY.interpreter, machine="aarch64"), processor=processor)
    assert worst_of(facts).severity == "ok"
    assert any("NEON, dot products, i8mm, SVE, bf16" in finding.message for finding in examine(facts))


ROOM = Footprint(context=2048, base=60 * MIB, tokenizer=0, weights=500 * MIB, loading=0, cache=100 * MIB, run=40 * MIB)


@pytest.mark.parametrize(
    ("free", "severity"), [(None, "note"), (650 * MIB, "error"), (800 * MIB, "warning"), (2 * GIB, "ok")]
)
def test_room_for_a_package(free: int | None, severity: str) -> None:
    (finding,) = check_room(ROOM, replace(HEALTHY, memory=Memory(64 * GIB, free)))
    assert finding.severity == severity
    assert "700.0 MiB" in finding.message


def test_provider_and_instructions_of_a_package(package: Path) -> None:
    manifest = read_manifest(package)
    cuda = replace(manifest, target="cuda")
    assert check_provider(manifest, HEALTHY) == []
    assert check_provider(cuda, ON_GPU) == []
    assert [f.severity for f in check_provider(cuda, HEALTHY)] == ["error"]
    assert [f.severity for f in check_provider(cuda, replace(ON_GPU, runtime=BROKEN_CUDA))] == ["error"]
    int8 = replace(manifest, weights=replace(manifest.weights, precision="int8"))
    old = replace(HEALTHY, processor=Cpu("A Haswell", frozenset({"avx2"})))
    assert check_instructions(int8, HEALTHY) == check_instructions(manifest, old) == []
    assert [f.severity for f in check_instructions(int8, old)] == ["warning"]


def test_a_damaged_package(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "copy")
    (copy / "model.onnx.data").write_bytes(b"short")
    (finding,) = examine_package(copy, HEALTHY)
    assert finding.severity == "error"
    assert "has 5 bytes" in finding.message
    result = CliRunner().invoke(cli, ["doctor", str(copy)])
    assert result.exit_code == 1
    assert "is not ready" in result.stdout
