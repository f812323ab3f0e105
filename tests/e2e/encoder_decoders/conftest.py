"""The families' checkpoints and packages, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import edgellm
import encoder_decoder_families
from encoder_decoder_checks import Load, Reference
from encoder_decoder_families import BY_NAME, Shared, make_model


@pytest.fixture(scope="session")
def reference() -> Reference:
    return cache(lambda name: make_model(BY_NAME[name]))


@pytest.fixture(scope="session")
def checkpoint(shared: Shared) -> Callable[[str], Path]:
    return lambda name: encoder_decoder_families.checkpoint(name, shared)


@pytest.fixture(scope="session")
def package(shared: Shared) -> Callable[..., Path]:
    return lambda name, precision="fp32": encoder_decoder_families.package(name, precision, shared)


@pytest.fixture(scope="session")
def load(package: Callable[..., Path]) -> Load:
    def opened(*which: str, kv_cache: Any = "auto") -> edgellm.EncoderDecoderModel:
        model = edgellm.load(package(*which), threads=1, kv_cache=kv_cache)
        assert isinstance(model, edgellm.EncoderDecoderModel)
        return model

    return cache(opened)
