from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgellm.errors import OptionError, PackageCorruptError, ProviderError
from edgellm.ort import library
from edgellm.ort.library import choose_device
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.system import cpu
from edgellm.system.cgroups import cpu_quota
from edgellm.system.cpu import usable_cores

WITHOUT_ONNXRUNTIME = """
import sys
sys.modules["onnxruntime"] = None
import edgellm
try:
    edgellm.load(sys.argv[1])
except edgellm.MissingDependencyError as error:
    print(error)
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "150000 100000",
            },
            1.5,
        ),
        ({"proc/self/cgroup": "0::/host/only\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (
            {
                "proc/self/cgroup": "9:memory:/m\n2:cpu,cpuacct:/c\n0::/\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert cpu_quota(write(tmp_path, files)) == expected


def test_usable_cores_counts_cores_not_hardware_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = "sys/devices/system/cpu/cpu{}/topology/core_cpus_list"
    write(tmp_path, {topology.format(cpu): f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)})
    monkeypatch.setattr(cpu, "affinity", lambda: range(8))
    assert usable_cores(tmp_path) == 4
    monkeypatch.setattr(cpu, "affinity", lambda: [1, 2])
    assert usable_cores(tmp_path) == 2
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"})
    assert usable_cores(tmp_path) == 1


def test_affinity_is_respected() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from edgellm.system.cpu import usable_cores; print(usable_cores())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


def test_missing_onnxruntime_says_what_to_install(package: Path) -> None:
    output = subprocess.check_output([sys.executable, "-c", WITHOUT_ONNXRUNTIME, str(package)], text=True)
    assert "`pip install edgellm[cpu]`, or `pip install edgellm[cuda]`" in output


def test_auto_is_what_the_package_was_made_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "edgellm"):
        assert choose_device("auto", "cpu") == "cpu"
    assert "device: cpu (the package was exported for it)" in caplog.text


def test_a_cuda_package_runs_on_the_cpu_only_when_asked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_device("cpu", "cuda") == "cpu"
    assert "correct but slow" in caplog.text
    monkeypatch.setitem(library.PROVIDERS, "cuda", "NoSuchProvider")
    for requested in ("auto", "cuda"):
        with pytest.raises(ProviderError, match=r"has no CUDA provider .*pip install edgellm\[cuda\]"):
            choose_device(requested, "cuda")


def test_wrong_devices() -> None:
    with pytest.raises(ProviderError, match="exported for the CPU and cannot run on CUDA"):
        choose_device("cuda", "cpu")
    with pytest.raises(OptionError, match="device is 'gpu', expected 'auto', 'cpu' or 'cuda'"):
        choose_device("gpu", "cpu")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_wrong_threads(package: Path, wrong: object) -> None:
    with pytest.raises(OptionError, match="threads is"):
        LoadedGraph(package / "model.onnx", threads=wrong)  # type: ignore[arg-type]


def test_threads_and_names(package: Path) -> None:
    opened = LoadedGraph(package / "model.onnx", threads=2, spinning=False)
    assert opened.threads == 2
    assert opened.provider == "CPUExecutionProvider"
    assert opened.inputs[:2] == ("input_ids", "attention_mask")
    assert opened.optional_inputs == ("logits_to_keep",)
    assert opened.outputs[0] == "logits"


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(PackageCorruptError, match=r"model\.onnx cannot be loaded") as caught:
        LoadedGraph(tmp_path / "model.onnx")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("how", ["missing", "short", "link", "path"])
def test_weights_that_are_not_in_the_package(package: Path, tmp_path: Path, how: str) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    data = copy / "model.onnx.data"
    whole = data.read_bytes()
    data.unlink()
    if how == "short":
        data.write_bytes(whole[:1000])
    if how == "link":
        (tmp_path / "outside.data").write_bytes(whole)
        data.symlink_to(tmp_path / "outside.data")
    if how == "path":
        (tmp_path / "model.onnx.data").write_bytes(whole)
        graph = onnx.load_model(copy / "model.onnx", load_external_data=False)
        for entry in (entry for weight in graph.graph.initializer for entry in weight.external_data):
            entry.value = "../model.onnx.data" if entry.key == "location" else entry.value
        onnx.save_model(graph, copy / "model.onnx")
    with pytest.raises(PackageCorruptError, match=r"model\.onnx cannot be loaded: .*xternal "):
        LoadedGraph(copy / "model.onnx")


def test_a_failing_run_is_a_provider_error(package: Path) -> None:
    binding = LoadedGraph(package / "model.onnx").bind()
    binding.input("input_ids", np.zeros((1, 1), np.int64))
    with pytest.raises(ProviderError, match="failed while running the model"):
        binding.run()


def test_bound_arrays_must_be_contiguous(package: Path) -> None:
    binding = LoadedGraph(package / "model.onnx").bind()
    with pytest.raises(AssertionError, match="C-contiguous"):
        binding.input("input_ids", np.zeros((4, 4), np.int64)[:, ::2])
