"""What the workers on encoders share: a batch of equal lengths, timed; the hidden states of one text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from protocol import Arm, Seconds

SMALLEST_VOCABULARY = 30000


def encoder_arm(run: Callable[[np.ndarray], Any]) -> Arm:
    """run(ids [B, S]): the last hidden states [B, S, hidden]."""

    def several(prompts: Sequence[list[int]], new_tokens: int, beams: int) -> Seconds:
        ids = np.array(prompts, np.int64) % SMALLEST_VOCABULARY
        start = time.perf_counter()
        run(ids)
        return 0.0, time.perf_counter() - start

    def timed(ids: list[int], new_tokens: int) -> Seconds:
        return several([ids], 0, 1)

    return Arm(timed, lambda ids: run(np.array([ids], np.int64))[0], several)


def feeds(ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
