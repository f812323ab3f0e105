"""Views of tensors, read in slices, beside numpy on the whole."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm_export.checkpoint.tensors import (
    ArrayTensor,
    LazyTensor,
    RowConcat,
    RunPart,
    Transposed,
    transposed,
)

MATRIX = np.random.default_rng(0).random((24, 6), np.float32)
TENSOR = ArrayTensor("whole", MATRIX)
HEADS = MATRIX.reshape(2, 3, 4, 6)  # head, part, rows of each, columns
VIEWS: list[tuple[LazyTensor, np.ndarray]] = [
    (RunPart("queries", TENSOR, 0, 4, 12), HEADS[:, 0].reshape(8, 6)),
    (RunPart("values", TENSOR, 8, 12, 12), HEADS[:, 2].reshape(8, 6)),
    (
        RowConcat("qkv", tuple(RunPart(name, TENSOR, 4 * i, 4 * i + 4, 12) for i, name in enumerate("qkv"))),
        HEADS.swapaxes(0, 1).reshape(24, 6),
    ),
    (RunPart("biases", ArrayTensor("bias", MATRIX[:, 0]), 4, 8, 12), HEADS[:, 1, :, 0].reshape(8)),
    (RunPart("queries of groups", TENSOR, 0, 8, 12), MATRIX.reshape(2, 12, 6)[:, :8].reshape(16, 6)),
    (Transposed("transposed", TENSOR), MATRIX.T),
]


@pytest.mark.parametrize(("view", "whole"), VIEWS, ids=lambda value: getattr(value, "name", ""))
def test_slices_are_those_of_the_whole(view: LazyTensor, whole: np.ndarray) -> None:
    assert view.shape == whole.shape
    for start in range(len(whole)):
        for stop in range(start + 1, len(whole) + 1):
            np.testing.assert_array_equal(view.rows(start, stop), whole[start:stop])


def test_a_matrix_turned_twice_is_itself() -> None:
    turned = transposed("turned", TENSOR)
    assert isinstance(turned, Transposed)
    assert transposed("again", turned) is TENSOR
