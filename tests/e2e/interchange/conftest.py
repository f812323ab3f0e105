"""The peers, each in an environment of its own, which benchmarks/environments.py makes once for its versions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from environments import Unreachable, python_of
from hf_checkpoint import write_hf_checkpoint
from interchange.peer import Peer


@pytest.fixture(scope="session")
def genai() -> Iterator[Peer]:
    yield from _peer("onnxruntime-genai", "genai_driver.py")


@pytest.fixture(scope="session")
def optimum() -> Iterator[Peer]:
    yield from _peer("optimum", "optimum_driver.py")


@pytest.fixture(scope="session")
def llamacpp() -> Iterator[Peer]:
    yield from _peer("xllamacpp", "llamacpp_driver.py")


def _peer(name: str, driver: str) -> Iterator[Peer]:
    try:
        peer = Peer(python_of(name), driver)
    except Unreachable as reason:
        pytest.skip(str(reason))
    yield peer
    peer.close()


@pytest.fixture(scope="session")
def smollm2_checkpoint(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model as a Hugging Face directory of float32 weights."""
    return write_hf_checkpoint(smollm2_gguf, tmp_path_factory.mktemp("smollm2") / "checkpoint")
