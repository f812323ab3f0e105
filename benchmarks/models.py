"""The models of the comparison: a small trained one, and random weights in the shapes of two larger ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from environments import CACHE
from hf_checkpoint import write_hf_checkpoint
from random_checkpoint import QWEN25_05B, QWEN25_15B, write_checkpoint

SMOLLM2_GGUF = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Model:
    name: str
    title: str
    context: int
    """max_position_embeddings: no prompt with its answer may be longer."""
    trained: bool
    """Random weights are for speed only: their quality says nothing."""
    checkpoint: Callable[[], Path]
    """The Hugging Face directory that every conversion starts from, made on first use."""


def _smollm2() -> Path:
    if not SMOLLM2_GGUF.is_file():
        raise SystemExit(f"{SMOLLM2_GGUF} is missing; `make model` fetches it")
    return write_hf_checkpoint(SMOLLM2_GGUF, CACHE / "checkpoints" / "smollm2-135m")


def _qwen() -> Path:
    return write_checkpoint(CACHE / "checkpoints" / "qwen2.5-0.5b-random", QWEN25_05B)


def _larger_qwen() -> Path:
    return write_checkpoint(CACHE / "checkpoints" / "qwen2.5-1.5b-random", QWEN25_15B)


MODELS = {
    "smollm2": Model("smollm2", "SmolLM2-135M", 8192, True, _smollm2),
    "qwen2.5-0.5b-random": Model(
        "qwen2.5-0.5b-random",
        "random weights in the shape of Qwen2.5-0.5B",
        QWEN25_05B["max_position_embeddings"],
        False,
        _qwen,
    ),
    "qwen2.5-1.5b-random": Model(
        "qwen2.5-1.5b-random",
        "random weights in the shape of Qwen2.5-1.5B",
        QWEN25_15B["max_position_embeddings"],
        False,
        _larger_qwen,
    ),
}
