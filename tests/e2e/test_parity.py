"""Our packages against transformers on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import edgellm
import numpy as np
import pytest
import torch

from families import BY_NAME, FAMILIES

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude


def prompt(name: str, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, BY_NAME[name].config().vocab_size, length)


def reference_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(ids[None])).logits[0].numpy()


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_logits(name: str, reference: Callable[[str], Any], load: Callable[..., edgellm.Model]) -> None:
    ids = prompt(name, BY_NAME[name].length)
    expected = reference_logits(fresh(reference(name)), ids)
    assert relative(load(name).logits(ids), expected) < LOGITS_TOLERANCE
    assert relative(load(name).logits(ids[:7]), reference_logits(fresh(reference(name)), ids[:7])) < LOGITS_TOLERANCE


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@pytest.mark.parametrize("length", [5, 30])
def test_greedy(name: str, length: int, reference: Callable[[str], Any], load: Callable[..., edgellm.Model]) -> None:
    """Long enough to pass sliding windows, the trained length of dynamic ropes and LongRoPE's switch."""
    ids = prompt(name, length, seed=1)
    expected = hf_generate(fresh(reference(name)), ids, max_new_tokens=40, do_sample=False)
    assert list(load(name).generate(ids, max_new_tokens=40, do_sample=False).tokens) == expected[0]


def fresh(model: Any) -> Any:
    """Forget the frequencies that dynamic ropes of transformers remember from the last call."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.inv_freq = module.original_inv_freq
            module.max_seq_len_cached = module.original_max_seq_len
    return model


def hf_generate(model: Any, ids: np.ndarray, **options: Any) -> list[list[int]]:
    """New tokens of each sequence, padding after the end removed."""
    tokens = torch.tensor(ids[None])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    return [trimmed(row[len(ids) :].tolist(), model.generation_config.eos_token_id) for row in out]


def trimmed(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens
