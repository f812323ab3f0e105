"""What the tests of all kernels share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
CALLERS, TURNS = 4, 30


def same_bits(a: Floats, b: Floats) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def wrong_from_threads(compute: Callable[[int], Floats], expected: Sequence[Floats]) -> list[int]:
    """Which of the numbered results were not as `expected` when several threads computed them at a time."""
    wrong: list[int] = []

    def work(index: int) -> None:
        for turn in range(TURNS):
            which = (index + turn) % len(expected)
            if not same_bits(compute(which), expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong
