"""Quantized matrices as their method's own library packs them, beside what it reads of them (see make_data.py)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgellm_export.checkpoint.integers import integers_of
from edgellm_export.checkpoint.tensors import Every, LazyTensor, item_of, transposed
from edgellm_export.prequantized import widened
from edgellm_export.quantize.carried import carries
from edgellm_export.quantize.grid import Grid
from edgellm_export.weights.safetensors import SafetensorsTensor, read_safetensors

DATA = Path(__file__).parent / "data"
CASES = sorted(path.stem for path in DATA.glob("*.safetensors"))
TYPES = {"F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype(np.float32)}
TWICE_ROUNDED = {"bnb-int8"}  # bitsandbytes multiplies twice
WITHOUT_GRID = ("gptq-4bit-desc_act", "ct-fp8", "ct-mxfp8", "fp8", "mxfp8", "mxfp4", "bnb-nf4", "bnb-fp4")


def metadata(case: str) -> dict[str, str]:
    with (DATA / f"{case}.safetensors").open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]


def config(case: str) -> dict[str, Any]:
    return {"quantization_config": json.loads(metadata(case)["config"])}


def read(case: str) -> tuple[LazyTensor, SafetensorsTensor]:
    """A case's matrix, and what the library reads."""
    tensors = read_safetensors(DATA / f"{case}.safetensors")
    (expected,) = (tensors.pop(name) for name in list(tensors) if name.startswith("expected"))
    (found,) = widened(config(case), tensors).values()
    return found, expected


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_is_what_its_library_reads(case: str) -> None:
    found, expected = read(case)
    assert found.shape == expected.shape
    ours, theirs = found.rows(0, found.shape[0]), expected.rows(0, expected.shape[0])
    assert ours.dtype == np.float32
    rounded = ours.astype(TYPES[expected.dtype]).astype(np.float32)  # the library computes in this type
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_array_max_ulp(rounded, theirs, 2 if case in TWICE_ROUNDED else 0)


@pytest.mark.parametrize("case", CASES)
def test_slices_of_rows_are_parts_of_the_whole(case: str) -> None:
    found, _ = read(case)
    count = found.shape[0]
    ends = [0, 1, 2, count // 2 + 1, count]
    slices = [found.rows(start, stop) for start, stop in itertools.pairwise(ends)]
    np.testing.assert_array_equal(np.concatenate(slices), found.rows(0, count))


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(WITHOUT_GRID)])
def test_integers_are_the_numbers_of_the_matrix(case: str) -> None:
    found, _ = read(case)
    count, columns = found.shape
    for start, stop in ((0, count), (3, 9)):
        (integers,) = integers_of(found, start, stop)
        assert integers.levels.max() < 2**integers.bits
        group = np.arange(columns) // integers.group_size
        weights = (integers.levels - integers.zero_points[:, group]) * integers.scales[:, group]
        np.testing.assert_array_equal(weights.astype(np.float32), found.rows(start, stop))


def test_other_matrices_have_no_integers() -> None:
    cases = [case for case in CASES if case.startswith(WITHOUT_GRID)]
    assert len(cases) == 13
    assert not any(integers_of(read(case)[0], 0, 1) for case in cases)


@pytest.mark.parametrize("step", [1, 2])
def test_experts_of_mxfp4_are_whole_numbers_of_eight_bits(step: int) -> None:
    found, _ = read("mxfp4-experts")
    for expert, whole in enumerate(found.rows(0, found.shape[0])):
        matrix = Every("w", transposed("w", item_of(found, expert)), step - 1, step)
        expected = whole.T[step - 1 :: step]
        np.testing.assert_array_equal(matrix.rows(0, matrix.shape[0]), expected)
        np.testing.assert_array_equal(matrix.rows(1, 3), expected[1:3])
        (integers,) = integers_of(matrix, 0, matrix.shape[0])
        levels = integers.levels.astype(np.float32) - np.repeat(integers.zero_points, 32, axis=1)
        np.testing.assert_array_equal(levels * np.repeat(integers.scales, 32, axis=1), expected)
        assert carries(matrix, Grid(8, 32, True))
        assert not carries(matrix, Grid(4, 32, False))
        assert (integers.bits, integers.checkpoint_bits) == (8, 4)
