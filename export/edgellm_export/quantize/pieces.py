"""A matrix is handled some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgellm_export.checkpoint.tensors import LazyTensor

PIECE_ELEMENTS = 4 << 20  # weights at a time: 16 MiB of float32


def pieces(weight: LazyTensor) -> Iterator[tuple[int, int]]:
    """All rows, as (start, stop)."""
    step = max(1, PIECE_ELEMENTS // max(1, int(np.prod(weight.shape[1:]))))
    for start in range(0, weight.shape[0], step):
        yield start, min(start + step, weight.shape[0])
