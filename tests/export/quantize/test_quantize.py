"""Integer matrices: rounding, rounding that makes up for its errors, and what ONNX Runtime's kernels make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgellm_export.checkpoint.tensors import ArrayTensor
from edgellm_export.onnx.builder import GraphBuilder, as_model
from edgellm_export.quantize.calibrated import SPREAD_COLUMNS, keep, rounded
from edgellm_export.quantize.formats import BlockFormat
from edgellm_export.quantize.grid import Codes, Grid, compensated, nearest
from edgellm_export.quantize.schemes import IntegerScheme, scheme_for

FLOAT32 = np.dtype(np.float32)
BLOCKS, FINER = BlockFormat(8, 64, True, FLOAT32), BlockFormat(8, 32, True, FLOAT32)
FORMATS = [BLOCKS, FINER, BlockFormat(8, 128, True, FLOAT32), BlockFormat(4, 32, False, FLOAT32)]
GRIDS = [Grid(8, 64, True), Grid(8, 32, True), Grid(4, 32, False), Grid(4, 16, True), Grid(8, 128, True)]


def drawn(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def related_inputs(tokens: int, columns: int) -> np.ndarray:
    """Activations as in trained models: they vary along fewer directions than they have channels."""
    return drawn(tokens, columns // 4, 1) @ drawn(columns // 4, columns, 2) + 0.1 * drawn(tokens, columns, 3)


def product(form: BlockFormat, matrix: np.ndarray, x: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x @ matrix.T as ONNX Runtime computes it in `form`."""
    g = GraphBuilder("test")
    codes = nearest(matrix, form.grid)
    value = g.input("x", ir.DataType.FLOAT, ["batch", "tokens", matrix.shape[1]])
    regions = form.regions("w", *matrix.shape)
    arrays = form.arrays(codes)
    assert [(a.shape, a.dtype) for a in arrays] == [(r.shape, r.dtype) for r in regions]
    stored = tuple(g.constant(r.name, a) for r, a in zip(regions, arrays, strict=True))
    y = form.multiply(g, value, stored, bias, "/layer", *matrix.shape)
    model = as_model(g.finish([(y, "y", ir.DataType.FLOAT, ["batch", "tokens", matrix.shape[0]])]))
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("columns", [64, 65, 100])
def test_each_weight_goes_to_its_nearest_level(grid: Grid, columns: int) -> None:
    rows = drawn(5, columns)
    codes = nearest(rows, grid)
    for i, (start, stop) in enumerate(grid.blocks(columns)):
        scale = codes.scales[:, i, None]
        wrong = np.abs(codes.weights(grid)[:, start:stop] - rows[:, start:stop])
        assert (wrong <= np.abs(scale) * (0.5001 if grid.bits == 8 else 1.001)).all()  # 4 bits may clip the other end
    assert len(grid.blocks(columns)) == codes.scales.shape[1] == -(-columns // grid.block_size)


@pytest.mark.parametrize("grid", GRIDS)
def test_compensation_brings_outputs_closer(grid: Grid) -> None:
    rows, inputs = drawn(48, 128), related_inputs(400, 128)
    errors = [
        np.linalg.norm(inputs @ (codes.weights(grid) - rows).T)
        for codes in (nearest(rows, grid), compensated(rows, inputs, grid))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_compensation_is_optimal_greedy_rounding() -> None:
    """Against the slow and obvious way: round a column, then solve for the others by least squares."""
    rows, inputs, grid = drawn(3, 6), related_inputs(40, 6).astype(np.float64), Grid(8, 8, True)
    codes = compensated(rows, inputs.astype(np.float32), grid)
    scales, zeros = grid.fit(rows)
    moments = inputs.T @ inputs
    moments += 0.01 * np.trace(moments) / 6 * np.eye(6)
    left = rows.astype(np.float64)
    for i in range(6):
        level = grid.levels(left[:, i].astype(np.float32), scales, zeros)
        error = left[:, i] - (level - zeros) * scales
        left[:, i] -= error
        if i < 5:
            rest = moments[i + 1 :, i + 1 :]
            left[:, i + 1 :] += np.outer(error, np.linalg.solve(rest, moments[i + 1 :, i]))
    np.testing.assert_allclose(codes.weights(grid), left, atol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_kernel_computes_what_the_error_was_measured_with(form: BlockFormat, with_bias: bool) -> None:
    matrix, x = drawn(40, 96), drawn(14, 96, 5).reshape(2, 7, 96) * np.float32(3)
    bias = drawn(1, 40, 6)[0] if with_bias else None
    expected = form.activations(x.reshape(14, 96)) @ nearest(matrix, form.grid).weights(form.grid).T
    expected = (expected + (0 if bias is None else bias)).reshape(2, 7, 40)
    np.testing.assert_allclose(product(form, matrix, x, bias), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


SCHEMES = [scheme for name in ("int8", "int4") if isinstance(scheme := scheme_for(name, "cpu"), IntegerScheme)]
USED = sorted({form for scheme in SCHEMES for form in (scheme.inner, scheme.outer)}, key=str)


@pytest.mark.parametrize("form", USED)
def test_a_row_does_not_depend_on_its_neighbours(form: BlockFormat) -> None:
    """To the bit, whatever the number of rows; and a row of zeros gives zeros."""
    matrix, x = drawn(200, 576), drawn(9, 576, 5)[None]
    x[0, 3] *= 1000
    x[0, 5] = 0
    together = product(form, matrix, x)[0]
    assert (together[5] == 0).all()
    for count in (1, 2, 5):
        for i in range(0, 9, count):
            assert np.array_equal(product(form, matrix, x[:, i : i + count])[0], together[i : i + count])


def test_large_weights_and_activations_do_not_saturate() -> None:
    """Products of bytes overflow 16-bit sums on kernels that add in pairs: the extremes must come out exactly."""
    matrix, x = np.full((16, 512), 1, np.float32), np.full((1, 4, 512), 1, np.float32)
    matrix[::2] = -1
    expected = np.where(np.arange(16) % 2, 512, -512).astype(np.float32)
    np.testing.assert_allclose(product(BLOCKS, matrix, x), np.broadcast_to(expected, (1, 4, 16)), rtol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_rounding_makes_up_for_its_errors_where_that_is_better(form: BlockFormat) -> None:
    matrix, inputs = drawn(40, 256), related_inputs(300, 256)
    found, plain = rounded(ArrayTensor("w", matrix), inputs, form), nearest(matrix, form.grid)
    outputs = inputs @ matrix.T

    def error(codes: Codes) -> float:
        wrong = form.activations(inputs) @ codes.weights(form.grid).T - outputs
        return float(np.sqrt(np.mean((np.linalg.norm(wrong, axis=1) / np.linalg.norm(outputs, axis=1)) ** 2)))

    assert found.error == pytest.approx(error(found.codes), rel=1e-4)
    assert found.error < 0.95 * error(plain)


def test_wide_matrices_go_to_their_nearest_levels() -> None:
    matrix, inputs = drawn(2, SPREAD_COLUMNS + 64), related_inputs(9, SPREAD_COLUMNS + 64)
    found = rounded(ArrayTensor("w", matrix), inputs, BLOCKS)
    np.testing.assert_array_equal(found.codes.levels, nearest(matrix, BLOCKS.grid).levels)


def test_inputs_that_are_no_numbers_or_all_zeros() -> None:
    matrix = drawn(40, 256)
    for value, error in ((np.nan, np.nan), (0, 0)):
        found = rounded(ArrayTensor("w", matrix), np.full((8, 256), value, np.float32), BLOCKS)
        np.testing.assert_array_equal(found.codes.levels, nearest(matrix, BLOCKS.grid).levels)
        np.testing.assert_equal(found.error, error)


def test_prepared_matrices_come_back_from_their_files(tmp_path: Path) -> None:
    matrix = rounded(ArrayTensor("w", drawn(8, 32)), drawn(4, 32, 1), BLOCKS)
    prepared = keep(BLOCKS, matrix, tmp_path / "0.npy")
    assert prepared.error == matrix.error
    assert all(np.array_equal(a, b) for a, b in zip(BLOCKS.arrays(matrix.codes), prepared.arrays(), strict=True))
