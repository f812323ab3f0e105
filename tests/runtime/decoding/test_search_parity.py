"""Whole searches against transformers' generate, and that the batch does not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from reference_models import cut, run, table_model, transformers_generate


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=6), min_size=2, max_size=4),
    st.sampled_from(
        [
            {},
            {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_length": 6},
            {"do_sample": True, "seed": 3, "num_return_sequences": 2, "top_p": 0.9, "logprobs": True},
            {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
            {"num_beams": 3, "do_sample": True, "seed": 3},
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7, "num_return_sequences": 4},
        ]
    ),
)
def test_what_a_prompt_gets_does_not_depend_on_the_batch(prompts, options) -> None:
    model = table_model(eos_bias=[(3, 3)])
    options = {"max_length": 14, "eos": (3,), **options}
    together = run(model, prompts, **options)[1]
    alone = [run(model, [prompt], **options)[1][0] for prompt in prompts]
    assert together == alone


GREEDY = [
    {},
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 1.4},
    {"exponential_decay_length_penalty": (3, 1.3)},
    {"encoder_no_repeat_ngram_size": 2, "repetition_penalty": 1.1},
    {"min_new_tokens": 5, "bad_words_ids": [[1], [4, 5]]},
    {"min_length": 8, "suppress_tokens": [2, 8]},
    {"forced_eos_token_id": 3, "begin_suppress_tokens": [0, 1, 2]},
]


@pytest.mark.parametrize("options", GREEDY, ids=str)
def test_greedy_search_gives_the_tokens_of_transformers(options) -> None:
    for seed in range(4):
        model = table_model(seed, eos_bias=[(3, 2)], sharpness=1)
        prompt = [seed, 7, 1, seed]
        expected, _ = transformers_generate(model, prompt, eos=(3, 5), max_new_tokens=12, **options)
        assert [h.tokens for h in run(model, [prompt], eos=(3, 5), max_new_tokens=12, **options)[1][0]] == expected


def test_sampling_has_the_distribution_of_transformers() -> None:
    model = table_model(vocab_size=6, sharpness=1.5, eos_bias=[(3, 1)])
    options = {"max_new_tokens": 2, "temperature": 1.3, "top_k": 5, "top_p": 0.93, "do_sample": True}
    runs = 3000
    torch.manual_seed(0)
    ours = run(model, [[1, 2]], eos=(3,), num_return_sequences=runs, seed=0, **options)[1][0]
    theirs, _ = transformers_generate(model, [1, 2], eos=(3,), num_return_sequences=runs, **options)
    assert_same_distribution([h.tokens for h in ours], theirs)


def test_beam_sampling_has_the_distribution_of_transformers() -> None:
    model = table_model(vocab_size=9, sharpness=1.0, eos_bias=[(3, 1)])
    options = {"max_new_tokens": 2, "num_beams": 2, "top_k": 5, "temperature": 1.5, "do_sample": True}
    runs = 2000
    torch.manual_seed(0)
    ours = [run(model, [[1, 2]], eos=(3,), seed=seed, **options)[1][0][0].tokens for seed in range(runs)]
    with torch.no_grad():
        output = model.generate(
            torch.tensor([[1, 2]] * runs), eos_token_id=[3], pad_token_id=0, use_cache=False, **options,
            attention_mask=torch.ones(runs, 2, dtype=torch.long),
        )  # fmt: skip
    assert_same_distribution(ours, [cut(row[2:].tolist(), (3,)) for row in output])


def assert_same_distribution(ours, theirs) -> None:
    """Frequencies within five standard errors of each other."""
    assert len(ours) == len(theirs)
    for outcome in set(ours) | set(theirs):
        a, b = ours.count(outcome), theirs.count(outcome)
        assert abs(a - b) <= 5 * np.sqrt(a + b), (outcome, a, b)


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=60, n_positions=64, initializer_range=0.4)
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 3}, {"repetition_penalty": 1.3}], ids=str
)
def test_a_real_model_in_a_batch_gives_what_transformers_gives_each_prompt(gpt2, options) -> None:
    prompts = [[5, 17, 3, 42], [8], [1, 2, 3, 4, 5, 6]]
    result = run(gpt2, prompts, eos=(7, 30), max_new_tokens=12, **options)[1]
    for prompt, hypotheses in zip(prompts, result, strict=True):
        expected, _ = transformers_generate(gpt2, prompt, eos=(7, 30), max_new_tokens=12, **options)
        assert [hypothesis.tokens for hypothesis in hypotheses] == expected
