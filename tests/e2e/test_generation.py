"""Whole searches on exported float32 packages: the tokens and scores of transformers, for each prompt by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
from comparison import Expected, hf_generate, prompt
from families import ENDING_OF_ALL_KINDS
from reference_models import reference_group_beam_search

Load = Callable[..., edgellm.Model]
Reference = Callable[[str], Any]
Prompts = Callable[[str, int], np.ndarray]

NAMES = ENDING_OF_ALL_KINDS
REPRESENTATIVE = ["gpt2-ending", "mistral-sliding-ending", "gemma3-ending"]
SCORE_TOLERANCE = 2e-5  # relative: a sum of up to 40 float32 log-probabilities


def assert_same(found: edgellm.Generation, expected: Expected) -> None:
    assert [sequence.tokens for sequence in found.sequences] == expected.tokens
    if expected.scores is not None:
        scores = [sequence.score for sequence in found.sequences]
        np.testing.assert_allclose(scores, expected.scores, rtol=SCORE_TOLERANCE)


@pytest.fixture(scope="session")
def ending_prompt(load: Load) -> Callable[[str, int], np.ndarray]:
    """A prompt of a family after which some of three beams find the end token, but not at once."""

    @cache
    def make(name: str, length: int) -> np.ndarray:
        for seed in range(30):
            ids = prompt(name, length, seed)
            found = load(name).generate(ids, num_beams=3, num_return_sequences=3, max_new_tokens=16).sequences
            ends = [len(sequence.tokens) for sequence in found if sequence.finish_reason == "eos"]
            if ends and max(ends) > 2:
                return ids
        raise AssertionError(f"{name} hardly ever ends; give it another scale in END_SCALES")

    return make


@pytest.mark.parametrize("name", NAMES)
def test_one_to_five_beams(name: str, reference: Reference, load: Load, ending_prompt: Prompts) -> None:
    """Long enough to pass sliding windows, the trained length of dynamic ropes and LongRoPE's switch."""
    for num_beams, length in zip(range(1, 6), (21, 9, 21, 9, 21), strict=True):
        ids = ending_prompt(name, length)
        options = {"num_beams": num_beams, "num_return_sequences": num_beams, "max_new_tokens": 20}
        assert_same(load(name).generate(ids, **options), hf_generate(reference(name), ids, **options))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_each_row_of_a_batch(
    name: str, options: dict[str, Any], reference: Reference, load: Load, ending_prompt: Prompts
) -> None:
    """Rows of all lengths, some of which are done long before the others, each as transformers continues it alone."""
    prompts = [ending_prompt(name, 9), prompt(name, 30), ending_prompt(name, 21), prompt(name, 1)]
    expected = [hf_generate(reference(name), ids, max_new_tokens=16, **options) for ids in prompts]
    for rows in range(1, 5):
        found = load(name).generate(prompts[:rows], max_new_tokens=16, **options)
        for generation, wanted in zip(found, expected, strict=False):
            assert_same(generation, wanted)


@pytest.mark.parametrize("name", REPRESENTATIVE)
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_length_penalty_and_early_stopping(
    name: str,
    early_stopping: bool | str,
    length_penalty: float,
    reference: Reference,
    load: Load,
    ending_prompt: Prompts,
) -> None:
    options = {"early_stopping": early_stopping, "length_penalty": length_penalty, "max_new_tokens": 16}
    for num_beams, length in [(2, 9), (4, 21)]:
        options |= {"num_beams": num_beams, "num_return_sequences": num_beams}
        ids = ending_prompt(name, length)
        assert_same(load(name).generate(ids, **options), hf_generate(reference(name), ids, **options))


CONSTRAINTS: list[dict[str, Any]] = [
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"min_new_tokens": 12},
    {"min_length": 16},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "min_new_tokens": 6},
    {"bad_words_ids": [[5], [2, 9], [60, 61]], "suppress_tokens": [20, 21]},
    {"forced_eos_token_id": 2},
    {"eos_token_id": [2, 40, 77]},
]


@pytest.mark.parametrize("name", REPRESENTATIVE)
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=str)
def test_constraints(
    name: str, constraint: dict[str, Any], reference: Reference, load: Load, ending_prompt: Prompts
) -> None:
    for num_beams in (1, 3):
        options = {"num_beams": num_beams, "num_return_sequences": num_beams, "max_new_tokens": 18, **constraint}
        ids = ending_prompt(name, 9)
        assert_same(load(name).generate(ids, **options), hf_generate(reference(name), ids, **options))


class Uncached:
    """A torch model as the reference of group beam search drives it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.no_grad()
    def last_logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model(ids[None], use_cache=False).logits[0, -1]


@pytest.mark.parametrize("name", REPRESENTATIVE)
@pytest.mark.parametrize("groups", [(4, 2), (6, 3), (3, 3)], ids=str)
def test_groups(name: str, groups: tuple[int, int], reference: Reference, load: Load, ending_prompt: Prompts) -> None:
    for early_stopping, penalty in [(True, 0.5), (False, 2.0), ("never", 20.0)]:
        options = {
            "num_beams": groups[0],
            "num_beam_groups": groups[1],
            "num_return_sequences": groups[0],
            "diversity_penalty": penalty,
            "early_stopping": early_stopping,
            "length_penalty": 1.0,
            "repetition_penalty": 1.2,
            "max_new_tokens": 14,
        }
        ids = ending_prompt(name, 9)
        expected = reference_group_beam_search(Uncached(reference(name)), ids.tolist(), (2,), 0, options)
        assert_same(load(name).generate(ids, **options), Expected(*expected))


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_unlike_options_give_unlike_results(name: str, load: Load, ending_prompt: Prompts) -> None:
    """So that the comparisons above are not of one and the same search."""
    penalties = [{"length_penalty": penalty} for penalty in (-1.0, 2.0)]
    stopping = [{"early_stopping": True}, {"early_stopping": "never", "length_penalty": 2.0}]
    searches: list[dict[str, Any]] = [{"num_beams": 1}, {}, *penalties, *stopping, *CONSTRAINTS]
    ids = ending_prompt(name, 21)
    shared = {"num_beams": 4, "max_new_tokens": 16}
    found = {load(name).generate(ids, **{**shared, **options}).tokens for options in searches}
    assert len(found) >= 6
