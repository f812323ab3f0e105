"""What the workers on speech share: as many seconds of noise as the prompt has tokens, written down without an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from protocol import Arm, Seconds

RATE = 16000
LANGUAGE = "en"
NO_TEXT = list(range(50257, 51865))  # the end, timestamps and the like, which no system may write


def speech_arm(write: Callable[[np.ndarray, int, int], int]) -> Arm:
    """write(samples, new_tokens, beams): how many tokens were written."""

    def several(prompts: Sequence[list[int]], new_tokens: int, beams: int) -> Seconds:
        noise = np.random.default_rng(len(prompts[0])).standard_normal(RATE * len(prompts[0]))
        start = time.perf_counter()
        count = write((0.1 * noise).astype(np.float32), new_tokens, beams)
        end = time.perf_counter()
        if count != new_tokens:
            raise AssertionError(f"asked for {new_tokens} tokens, got {count}")
        return 0.0, end - start

    return Arm(lambda ids, new_tokens: several([ids], new_tokens, 1), several=several)
