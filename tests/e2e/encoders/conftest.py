"""The families' checkpoints and packages, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import edgellm
import edgellm_export
from encoder_families import make_model, save_checkpoint


@pytest.fixture(scope="session")
def reference() -> Callable[..., Any]:
    return cache(make_model)


@pytest.fixture(scope="session")
def checkpoint(reference: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    out = tmp_path_factory.mktemp("checkpoint")
    return cache(lambda *case: save_checkpoint(reference(*case), out / "-".join(case)))


@pytest.fixture(scope="session")
def load(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    out = tmp_path_factory.mktemp("package")

    @cache
    def make(name: str, task: str, precision: str) -> edgellm.EncoderModel:
        path = out / f"{name}-{task}-{precision}"
        edgellm_export.export(
            checkpoint(name, task), path, precision=precision, verify_quality=False,  # type: ignore[arg-type]
        )  # fmt: skip
        return edgellm.load(path, threads=1)  # type: ignore[return-value]

    return make
