"""Views of tensors, read in slices, beside numpy on the whole."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm_export.checkpoint.tensors import (
    ArrayTensor,
    HeadPart,
    LazyTensor,
    RowConcat,
    Transposed,
    transposed,
)

MATRIX = np.random.default_rng(0).random((24, 6), np.float32)
TENSOR = ArrayTensor("whole", MATRIX)
HEADS = MATRIX.reshape(2, 3, 4, 6)  # head, part, rows of each, columns
VIEWS: list[tuple[LazyTensor, np.ndarray]] = [
    (HeadPart("queries", TENSOR, 0, 3, 4), HEADS[:, 0].reshape(8, 6)),
    (HeadPart("values", TENSOR, 2, 3, 4), HEADS[:, 2].reshape(8, 6)),
    (
        RowConcat("qkv", tuple(HeadPart(name, TENSOR, i, 3, 4) for i, name in enumerate("qkv"))),
        HEADS.swapaxes(0, 1).reshape(24, 6),
    ),
    (HeadPart("biases", ArrayTensor("bias", MATRIX[:, 0]), 1, 3, 4), HEADS[:, 1, :, 0].reshape(8)),
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
