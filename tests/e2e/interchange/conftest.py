"""The peers, each in an environment of its own, which benchmarks/environments.py makes once for its versions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from environments import Unreachable, python_of
from interchange.peer import Peer


@pytest.fixture(scope="session")
def genai() -> Iterator[Peer]:
    yield from _peer("onnxruntime-genai", "genai_driver.py")


@pytest.fixture(scope="session")
def optimum() -> Iterator[Peer]:
    yield from _peer("optimum", "optimum_driver.py")


def _peer(name: str, driver: str) -> Iterator[Peer]:
    try:
        peer = Peer(python_of(name), driver)
    except Unreachable as reason:
        pytest.skip(str(reason))
    yield peer
    peer.close()
