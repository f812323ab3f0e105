"""Integer matrices: rounding, rounding that makes up for its errors, and what ONNX Runtime's kernels make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgellm_export.onnx.builder import GraphBuilder, as_model
from edgellm_export.quantize.choice import LIMIT, SOFTMAX_LIMIT, choose, keep
from edgellm_export.quantize.formats import BlockFormat, MatrixFormat, RowFormat
from edgellm_export.quantize.grid import Grid, compensated, nearest
from edgellm_export.quantize.row_formats import StaticFormat, UnevenFormat, with_static, with_uneven
from edgellm_export.quantize.schemes import scheme_for

FLOAT32 = np.dtype(np.float32)
ROWS, BLOCKS = RowFormat(), BlockFormat(8, 32, True, FLOAT32)
GRIDS = [Grid(8, None, True), Grid(8, 32, True), Grid(4, 32, False), Grid(4, 16, True), Grid(8, 128, True)]


def drawn(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def related_inputs(tokens: int, columns: int) -> np.ndarray:
    """Activations as in trained models: they vary along fewer directions than they have channels."""
    return drawn(tokens, columns // 4, 1) @ drawn(columns // 4, columns, 2) + 0.1 * drawn(tokens, columns, 3)


def product(form: MatrixFormat, matrix: np.ndarray, x: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
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
    assert len(grid.blocks(columns)) == codes.scales.shape[1] == -(-columns // (grid.block_size or columns))


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
    rows, inputs, grid = drawn(3, 6), related_inputs(40, 6).astype(np.float64), Grid(8, None, True)
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


@pytest.mark.parametrize("form", [ROWS, BLOCKS, BlockFormat(8, 128, True, FLOAT32), BlockFormat(4, 32, False, FLOAT32)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_kernel_computes_what_the_choice_was_measured_with(form: MatrixFormat, with_bias: bool) -> None:
    matrix, x = drawn(40, 96), drawn(14, 96, 5).reshape(2, 7, 96) * np.float32(3)
    bias = drawn(1, 40, 6)[0] if with_bias else None
    expected = form.activations(x.reshape(14, 96)) @ nearest(matrix, form.grid).weights(form.grid).T
    expected = (expected + (0 if bias is None else bias)).reshape(2, 7, 40)
    np.testing.assert_allclose(product(form, matrix, x, bias), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


USED = sorted({form for name in ("int8", "int4") for form in scheme_for(name, "cpu").candidates}, key=str)


@pytest.mark.parametrize("form", USED)
def test_a_row_does_not_depend_on_its_neighbours(form: MatrixFormat) -> None:
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
    """uint8 times int8 overflows 16-bit sums on kernels that add in pairs: the extremes must come out exactly."""
    matrix, x = np.full((16, 512), 1, np.float32), np.full((1, 4, 512), 1, np.float32)
    matrix[::2] = -1
    expected = np.where(np.arange(16) % 2, 512, -512).astype(np.float32)
    np.testing.assert_allclose(product(ROWS, matrix, x), np.broadcast_to(expected, (1, 4, 16)), rtol=1e-6)


def test_the_fastest_format_that_is_close_enough() -> None:
    matrix, even = drawn(40, 256), drawn(300, 256, 5)
    assert choose(matrix, even, (ROWS, BLOCKS), LIMIT).form == ROWS
    assert choose(matrix, even, (ROWS, BLOCKS), SOFTMAX_LIMIT).form == BLOCKS
    uneven = even.copy()
    uneven[:, 7] *= 300  # one channel takes all of a row's levels
    assert choose(matrix, uneven, (ROWS, BLOCKS), LIMIT).form == BLOCKS
    found = choose(matrix, np.full((8, 256), np.nan, np.float32), (ROWS, BLOCKS), LIMIT)
    assert found.form == BLOCKS
    silent = choose(matrix, np.zeros((8, 256), np.float32), (ROWS, BLOCKS), LIMIT)
    assert silent.error == 0


def test_prepared_matrices_come_back_from_their_files(tmp_path: Path) -> None:
    arrays = ROWS.arrays(nearest(drawn(8, 32), ROWS.grid))
    again = keep(ROWS, 0.01, arrays, tmp_path / "0.npy").arrays()
    assert all(np.array_equal(a, b) for a, b in zip(arrays, again, strict=True))


def test_a_fixed_range_is_what_the_kernel_makes_of_it() -> None:
    """One-sided as behind GELU, values beyond the range included; the kernel adds the bias."""
    form = StaticFormat(low=-0.2, high=3.0)
    matrix, bias = drawn(24, 64), drawn(1, 24, 5)[0]
    x = np.abs(drawn(40, 64, 6)).reshape(2, 20, 64) - np.float32(0.17)
    x[0, 0, :2] = 9.0, -5.0
    found = product(form, matrix, x, bias)
    rounded = nearest(matrix, form.grid).weights(form.grid)
    wanted = form.activations(x.reshape(40, 64)) @ rounded.T + bias
    np.testing.assert_allclose(found.reshape(40, 24), wanted, atol=1e-4)
    assert form.activations(x.reshape(40, 64)).max() == pytest.approx(3.0, abs=0.01)
    assert form.activations(np.zeros((1, 64), np.float32)).max() == 0


def test_a_fixed_range_is_for_rows_that_are_alike() -> None:
    alike = drawn(100, 64)
    one_large = alike.copy()
    one_large[7] *= 10
    candidates = (ROWS, BLOCKS)
    first, *others = with_static(candidates, alike)
    assert isinstance(first, StaticFormat)
    assert tuple(others) == candidates
    assert first.low < alike.min() < alike.max() < first.high
    assert with_static(candidates, one_large) == candidates
    assert with_static((BLOCKS,), alike) == (BLOCKS,)
    assert with_static(candidates, np.zeros((4, 64), np.float32)) == candidates
    shift = np.full(64, 100, np.float32)  # rows are alike that hardly differ from it
    assert with_static(candidates, one_large - shift, np.zeros(64, np.float32))[1:] == candidates
    assert with_static(candidates, one_large, shift)[1:] == candidates
    assert with_static(candidates, one_large, np.zeros(64, np.float32)) == candidates


def gelu(x: np.ndarray) -> np.ndarray:
    return (0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(np.float32)


@pytest.mark.parametrize("activate", [gelu, lambda x: np.maximum(x, 0)])
def test_uneven_rows_are_what_the_kernel_makes_of_them(activate: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rows of every size, one of them nothing but zeros, one that hardly leaves zero."""
    x = activate(drawn(40, 64, 7) * np.logspace(-2, 1, 40, dtype=np.float32)[:, None])
    x[3] = 0
    (form,) = with_uneven((ROWS,), activate(2 * drawn(200, 64, 8)))
    assert isinstance(form, UnevenFormat)
    matrix, bias = drawn(24, 64), drawn(1, 24, 5)[0]
    found = product(form, matrix, x.reshape(2, 20, 64), bias)
    rounded = nearest(matrix, form.grid).weights(form.grid)
    np.testing.assert_allclose(found.reshape(40, 24), form.activations(x) @ rounded.T + bias, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("activate", "gain"), [(gelu, 1.6), (lambda x: np.maximum(x, 0), 1.95)])
def test_uneven_rows_have_finer_steps(activate: Callable[[np.ndarray], np.ndarray], gain: float) -> None:
    x = activate(2 * drawn(200, 256))
    (form,) = with_uneven((ROWS,), x)
    errors = [np.abs(each.activations(x) - x).mean() for each in (ROWS, form)]
    assert errors[0] > gain * errors[1]


def test_uneven_rows_reach_the_lowest_value() -> None:
    """Also where nothing in the row is above zero."""
    (form,) = with_uneven((ROWS,), gelu(2 * drawn(200, 64)))
    assert isinstance(form, UnevenFormat)
    row = np.full((1, 64), form.low, np.float32)
    np.testing.assert_allclose(form.activations(row), row, rtol=1e-5)


def test_uneven_rows_are_for_what_hardly_falls_below_zero() -> None:
    candidates = (ROWS, BLOCKS)
    form, other = with_uneven(candidates, gelu(2 * drawn(200, 64)))
    assert isinstance(form, UnevenFormat)
    assert other == BLOCKS
    damaged = [gelu(drawn(4, 64)) for _ in range(3)]
    for inputs, value in zip(damaged, (np.nan, np.inf, -np.inf), strict=True):
        inputs[:, 5] = value
    for inputs in (drawn(100, 64), np.zeros((4, 64), np.float32), *damaged):
        assert with_uneven(candidates, inputs) == candidates
    assert list(with_uneven((BLOCKS,), gelu(drawn(100, 64)))) == [BLOCKS]
