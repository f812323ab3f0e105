"""Small models of long contexts: for texts longer than what the cache has of something else than keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgellm_export
from families import BY_NAME, make_model, save_checkpoint

CONTEXT = 640
LOGITS_TOLERANCE = 5e-5  # as the other families', for ten times as many tokens
LOGPROBS = 1e-4  # absolute
FREE: dict[str, Any] = {"eos_token_id": [], "logprobs": True}
Shared = Callable[[str, Callable[[Path], Any]], Path]


def long_model(name: str) -> Any:
    """A family's, of CONTEXT tokens."""
    family = BY_NAME[name]

    def config() -> Any:
        made = family.config()
        made.max_position_embeddings = CONTEXT
        return made

    return make_model(replace(family, config=config))


def long_packages(name: str, model: Any, shared: Shared) -> Callable[[str], Path]:
    """By precision."""
    source = shared(f"checkpoints/{name}-long", lambda path: save_checkpoint(model, path))
    options: dict[str, Any] = {"verify_quality": False, "calibrate": False}
    return lambda precision: shared(
        f"packages/{name}-long-{precision}",
        lambda path: edgellm_export.export(source, path, precision=precision, **options),
    )


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 131, length).tolist()
