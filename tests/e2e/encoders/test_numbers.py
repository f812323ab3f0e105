"""Encoder-only packages against transformers on the same weights, and against themselves in other batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from comparison import relative
from edgellm.errors import ContextOverflowError
from edgellm.models.encoder import buckets
from encoder_checks import TOLERANCE, expected, inputs
from encoder_families import CASES, CONTEXT, LABELS


@pytest.mark.parametrize(("name", "task"), CASES)
def test_outputs(name: str, task: str, reference: Callable[..., Any], load: Callable[..., Any]) -> None:
    """A batch of several lengths, so with padding, beside one input at a time in transformers."""
    model = load(name, task, "fp32")
    assert model.manifest.task == task
    found = [result.outputs for result in model.run(inputs(name))]
    wanted = [expected(reference(name, task), one) for one in inputs(name)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert {key: array.shape for key, array in ours.items()} == {key: a.shape for key, a in theirs.items()}
    for key in wanted[0]:  # of all inputs together: a single one may have nothing but small numbers
        assert relative(*(np.concatenate([outputs[key].ravel() for outputs in o]) for o in (found, wanted))) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "feature-extraction"),
        ("deberta-v3", "token-classification"),
        ("modernbert", "fill-mask"),
        ("roberta", "text-classification"),
    ],
)
def test_results_do_not_depend_on_the_batch(name: str, task: str, precision: str, load: Callable[..., Any]) -> None:
    model = load(name, task, precision)
    together = model.run(inputs(name) + inputs(name, seed=1))
    for one, result in zip(inputs(name), together, strict=False):
        (alone,) = model.run([one])
        for key in alone.outputs:
            if model._loaded.is_exact:
                np.testing.assert_array_equal(result.outputs[key], alone.outputs[key])
            assert relative(result.outputs[key], alone.outputs[key]) < TOLERANCE


def test_pairs_of_texts_have_types(reference: Callable[..., Any], load: Callable[..., Any]) -> None:
    model = load("bert", "text-classification", "fp32")
    encoding = model.tokenizer.encoding("one", "two")
    assert set(encoding.type_ids.tolist()) == {0, 1}
    (result,) = model.run([("one", "two")])
    wanted = expected(reference("bert", "text-classification"), encoding)
    assert relative(result.logits, wanted["logits"]) < TOLERANCE
    assert model.labels == LABELS


def test_buckets_hold_inputs_of_like_length() -> None:
    lengths = [100, 3, 90, 88, 50, 49, 3, 200]
    found = list(buckets(lengths, 300, 10**9))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        longest = max(lengths[row] for row in rows)
        assert all(lengths[row] >= longest * 7 / 8 for row in rows)
        assert len(rows) == 1 or longest * len(rows) <= 300
    assert [0, 2, 3] in found
    assert [len(rows) for rows in buckets([10] * 5, 10**9, 25)] == [2, 2, 1]


def test_the_position_table_of_roberta_has_two_rows_more(load: Callable[..., Any]) -> None:
    model = load("roberta", "fill-mask", "fp32")
    assert model.manifest.context_length == CONTEXT - 2
    assert np.isfinite(model.run([[5] * (CONTEXT - 2)])[0].logits).all()
    with pytest.raises(ContextOverflowError):
        model.run([[5] * (CONTEXT - 1)])
    assert len(model.run([[5] * 60], truncation="longest_first")[0].encoding) == CONTEXT - 2
