"""Checkpoints and packages are made once per run and shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import edgellm_export
import pytest
import torch
from families import BY_NAME, make_model, save_checkpoint

import edgellm


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """The torch model of a family by name."""
    return cache(lambda name: make_model(BY_NAME[name]))


@pytest.fixture(scope="session")
def checkpoint(reference: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint directory of a family by name."""
    return cache(lambda name: save_checkpoint(reference(name), tmp_path_factory.mktemp("checkpoint") / name))


@pytest.fixture(scope="session")
def package(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The package directory of a family by name, precision and target."""

    @cache
    def make(name: str, precision: str = "fp32", target: str = "cpu") -> Path:
        out = tmp_path_factory.mktemp("package") / f"{name}-{precision}-{target}"
        return edgellm_export.export(
            checkpoint(name),
            out,
            precision=precision,
            target=target,
            verify_quality=False,  # type: ignore[arg-type]
        ).path

    return make


@pytest.fixture(scope="session")
def load(package: Callable[..., Path]) -> Callable[..., edgellm.Model]:
    """A loaded model by family name, precision and target, on the CPU provider."""
    return cache(lambda *which: edgellm.load(package(*which), device="cpu", threads=1))
