"""Our packages against transformers on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import edgellm
from comparison import hf_generate, prompt, reference_logits, relative
from families import BY_NAME, FAMILIES

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_logits(name: str, reference: Callable[[str], Any], load: Callable[..., edgellm.Model]) -> None:
    ids = prompt(name, BY_NAME[name].length)
    expected = reference_logits(reference(name), ids)
    assert relative(load(name).logits(ids), expected) < LOGITS_TOLERANCE
    assert relative(load(name).logits(ids[:7]), reference_logits(reference(name), ids[:7])) < LOGITS_TOLERANCE


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@pytest.mark.parametrize("length", [5, 30])
def test_greedy(name: str, length: int, reference: Callable[[str], Any], load: Callable[..., edgellm.Model]) -> None:
    """Long enough to pass sliding windows, the trained length of dynamic ropes and LongRoPE's switch."""
    ids = prompt(name, length, seed=1)
    expected = hf_generate(reference(name), ids, max_new_tokens=40, do_sample=False).tokens
    assert [load(name).generate(ids, max_new_tokens=40, do_sample=False).tokens] == expected
