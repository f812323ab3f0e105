"""Rows of an engine: of several sources, taken out and put in while others go on."""

from __future__ import annotations

import numpy as np
import pytest

import edgellm
from comparison import relative
from edgellm.decoding.decoder import Reading
from edgellm.engines.in_place.host_cache import FEW_ROWS
from edgellm.engines.in_place.places import LENGTH_STEP
from edgellm.ort.kernels import library
from encoder_decoder_checks import LOGITS_TOLERANCE, NAMES, REPRESENTATIVE, STEPWISE, Load, Reference, start_of
from encoder_decoder_families import PAD, reference_logits, sources
from row_driver import Driven, Row, assert_exact_however_they_came, begin_and_end_empty, come_and_go


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_rows_of_unequal_numbers(name: str, reference: Reference, load: Load) -> None:
    """Three rows of one source, one of another, and a third source that is done: each as by itself."""
    model, rows = load(name), sources(20, 9, 14)
    engine = model.new_engine()
    engine.prefill([np.array([start_of(name)])] * 3, rows)
    engine.reorder(np.array([0, 0, 0, 1, 1, 2, 2, 2]))
    first = np.array([5, 6, 7, 8, 9, 10, 11, 12])
    engine.decode(first)
    engine.reorder(np.array([2, 0, 0, 6]))
    found = engine.decode(np.array([20, 21, 22, 23]))
    for got, row, tokens in zip(found, (0, 0, 0, 2), ((7, 20), (5, 21), (5, 22), (11, 23)), strict=True):
        expected = reference_logits(reference(name), rows[row], np.array([start_of(name), *tokens]))
        assert relative(got, expected[-1]) < LOGITS_TOLERANCE


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize(
    ("precision", "kv_cache"), [("fp32", "auto"), ("int8", "auto"), ("int4", "auto"), ("int8", "bfloat16")]
)
@pytest.mark.parametrize("name", NAMES)
def test_exactly(name: str, precision: str, kv_cache: str, load: Load) -> None:
    """On edgellm's kernels: sources of unequal lengths side by side, each to the last bit as by itself."""
    if name in STEPWISE and kv_cache != "auto":
        with pytest.raises(edgellm.OptionError, match="some of this graph's is ONNX Runtime's"):
            load(name, precision, kv_cache=kv_cache)
        return
    model, start, steps = load(name, precision, kv_cache=kv_cache), start_of(name), np.array([[5, 6, 7], [8, 9, 10]])

    def logits(rows: list[np.ndarray], tokens: np.ndarray) -> np.ndarray:
        engine = model.new_engine()
        found = [engine.prefill([np.array([start])] * len(rows), rows).copy()]
        return np.stack([*found, *(engine.decode(step).copy() for step in tokens)], 1)

    together = sources(20, 9, 14)
    found = logits(together, steps)
    for row, source in enumerate(together):
        np.testing.assert_array_equal(found[row], logits([source], steps[:, row : row + 1])[0])


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize(
    ("name", "precision", "kv_cache"),
    [(name, *kind) for kind in (("fp32", "auto"), ("int8", "auto")) for name in NAMES]
    + [(name, "int8", "bfloat16") for name in REPRESENTATIVE],
)
def test_exactly_however_they_came(name: str, precision: str, kv_cache: str, load: Load) -> None:
    model = load(name, precision, kv_cache=kv_cache)
    together = not name.startswith("prophetnet")
    assert_exact_however_they_came(model.new_engine, [start_of(name)], sources(20, 9, 34), together=together)


def driven(name: str, reference: Reference, load: Load) -> Driven:
    """An engine, beside transformers' model on each row by itself."""

    def alone(row: Row) -> np.ndarray:
        return reference_logits(reference(name), np.array(row.source), np.array(row.tokens))[-1]

    return Driven(load(name).new_engine(), alone, LOGITS_TOLERANCE, sources=True)


@pytest.mark.parametrize("name", NAMES)
def test_rows_come_and_go(name: str, reference: Reference, load: Load) -> None:
    """Targets of unlike lengths side by side."""
    come_and_go(driven(name, reference, load), (1, 1), 1, 3, 1, 1)
    begin_and_end_empty(driven(name, reference, load), 1)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_rows_in_any_order(name: str, reference: Reference, load: Load) -> None:
    rows = driven(name, reference, load)
    rows.prefill(2, 2, 2)
    rows.reorder(2, 0, 1, 0)
    rows.insert(1)
    rows.decode(2)
    rows.reorder(4, 1, 3, 0)
    rows.decode(2)
    rows.drop(1)
    rows.reorder(1, 2, 0, 0)
    rows.decode(2)


def test_what_rows_that_came_late_cost(load: Load) -> None:
    """Room beside the others, and none when all of them are gone."""
    model, (source, other) = load("t5"), sources(20, 9)
    layout, start = model.manifest.model.cross_cache, np.array([PAD])
    engine = model.new_engine()
    engine.prefill([start], [source], Reading(headroom=10))
    alone = engine.cache_bytes, engine.cross_cache_bytes
    for late in (other, source):
        assert len([*engine.read(start, late, headroom=10)]) == 1
    assert engine.cache_bytes == (1 + FEW_ROWS) * alone[0]
    assert engine.cross_cache_bytes == alone[1] + 2 * LENGTH_STEP * layout.bytes_per_token()
    engine.drop([1, 2])
    assert (engine.cache_bytes, engine.cross_cache_bytes) == alone
    engine.drop([0])
    assert (engine.rows, engine.cache_bytes, engine.holds_one) == (0, 0, True)


def test_beams_have_their_source_once_beside_other_beams(load: Load) -> None:
    """And once for each of them beside a row that is alone."""
    model, (source, other) = load("t5"), sources(20, 9)
    place = LENGTH_STEP * model.manifest.model.cross_cache.bytes_per_token()
    engine = model.new_engine()
    found = []
    for late in (source, other):
        list(engine.read(np.array([PAD]), late))
        engine.reorder(np.array([*range(engine.rows - 1), *[engine.rows - 1] * 4]))
        engine.decode(np.arange(engine.rows) + 5)
        found.append(engine.cross_cache_bytes // place)
    engine.reorder(np.array([4, 0, 1, 2, 3]))
    engine.decode(np.arange(5) + 5)
    assert [*found, engine.cross_cache_bytes // place] == [1, 2, 8], "8: room for 5"
