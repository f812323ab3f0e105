"""The tiny Whispers' checkpoints and packages, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import edgellm
import speech_checkpoints
from speech_checkpoints import Shared


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """A fresh model each time: `generate` leaves traces in its generation_config."""
    return speech_checkpoints.make_model


@pytest.fixture(scope="session")
def checkpoint(shared: Shared) -> Callable[[str], Path]:
    return lambda kind: speech_checkpoints.checkpoint(kind, shared)


@pytest.fixture(scope="session")
def load(shared: Shared) -> Callable[..., edgellm.SpeechModel]:
    def opened(kind: str = "many", precision: str = "fp32") -> edgellm.SpeechModel:
        model = edgellm.load(speech_checkpoints.package(kind, precision, shared), threads=1)
        assert isinstance(model, edgellm.SpeechModel)
        return model

    return cache(opened)
