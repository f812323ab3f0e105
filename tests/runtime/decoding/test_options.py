"""Generation options: defaults, what wins over what, and errors that name every problem."""

import json
from dataclasses import fields

import numpy as np
import pytest
from transformers import GenerationConfig

from edgellm.decoding import GenerationOptions
from edgellm.errors import ContextOverflowError, EdgellmError, OptionError

CONSTRAINTS = {"json_schema", "regex", "grammar", "choices"}
OPENAIS = {"logit_bias", "presence_penalty", "frequency_penalty", "top_logprobs", "stop"}
REASONING = {"reasoning_budget", "reasoning_markers"}
OURS_ALONE = {"seed", "logprobs", "overflow", "overflow_keep", "prompt_lookup", *CONSTRAINTS, *OPENAIS, *REASONING}
OTHER_OFF_VALUE = {"stop_strings", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"}  # () where HF has None
OTHER_DEFAULT = {"max_new_tokens": 256, "max_length": None}


def test_names_and_defaults_are_those_of_transformers() -> None:
    theirs = GenerationConfig().to_dict()
    for field in fields(GenerationOptions):
        if field.name in OURS_ALONE:
            continue
        assert field.name in theirs
        if field.name in OTHER_OFF_VALUE:
            assert field.default == ()
        else:
            assert field.default == OTHER_DEFAULT.get(field.name, theirs[field.name]), field.name


def test_nothing_given() -> None:
    assert GenerationOptions.create() == GenerationOptions()
    assert GenerationOptions.create({}) == GenerationOptions.create(None)


def test_the_caller_wins_over_the_package_and_the_package_over_the_defaults() -> None:
    package = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "_from_model_config": True,
        "transformers_version": "4",
    }
    options = GenerationOptions.create(package, temperature=0.9)
    assert (options.do_sample, options.temperature, options.top_k, options.top_p) == (True, 0.9, 20, 1.0)


def test_what_the_caller_asks_of_the_text_replaces_what_the_package_does() -> None:
    package = {"json_schema": {"type": "integer"}}
    assert GenerationOptions.create(package).constraint == ("json_schema", '{"type": "integer"}')
    assert GenerationOptions.create(package, regex="a").constraint == ("regex", "a")
    assert GenerationOptions.create(package, json_schema=None).constraint is None
    with pytest.raises(OptionError, match="regex and choices say what the text may be"):
        GenerationOptions.create(package, regex="a", choices=["b"])


def test_null_in_the_package_says_nothing() -> None:
    assert GenerationOptions.create({"top_k": None, "eos_token_id": None, "pad_token_id": -1}) == GenerationOptions()


def test_none_from_the_caller_switches_an_option_off() -> None:
    package = {"do_sample": True, "top_k": 20, "top_p": 0.9, "eos_token_id": 2, "min_p": 0.1, "max_new_tokens": 30}
    options = GenerationOptions.create(
        package, top_k=None, top_p=None, eos_token_id=None, min_p=None, max_new_tokens=None
    )
    assert (options.top_k, options.top_p, options.eos_token_id, options.min_p) == (0, 1.0, (), None)
    assert options.max_new_tokens == 256


def test_values_become_tuples_and_plain_numbers() -> None:
    options = GenerationOptions.create(
        {"eos_token_id": [2, 3]},
        stop_strings="END",
        bad_words_ids=[[1, 2], np.array([3])],
        forced_eos_token_id=np.int64(4),
        repetition_penalty=np.float32(1.5),
        suppress_tokens=np.array([5, 6]),
    )
    assert options.eos_token_id == (2, 3)
    assert options.stop_strings == ("END",)
    assert options.bad_words_ids == ((1, 2), (3,))
    assert options.forced_eos_token_id == (4,)
    assert options.suppress_tokens == (5, 6)
    assert type(options.repetition_penalty) is float
    json.dumps(options.suppress_tokens)
    hash(options)


@pytest.mark.parametrize(
    ("package", "caller", "expected"),
    [
        ({}, {}, 256),
        ({}, {"max_new_tokens": 7}, 7),
        ({}, {"max_length": 17}, 7),
        ({"max_length": 30}, {}, 20),
        ({"max_new_tokens": 40}, {}, 40),
        ({"max_new_tokens": 40, "max_length": 30}, {}, 40),
        ({"max_length": 30}, {"max_new_tokens": 7}, 7),
        ({"max_new_tokens": 40}, {"max_length": 17}, 7),
        ({"max_new_tokens": 40}, {"max_length": 17, "max_new_tokens": 3}, 3),
    ],
)
def test_limit_of_a_prompt_of_ten_tokens(package, caller, expected) -> None:
    assert GenerationOptions.create(package, **caller).limit(10) == expected


def test_limit_stays_within_the_context() -> None:
    options = GenerationOptions.create()
    assert options.limit(10, 100) == 90
    assert options.limit(99, 100) == 1
    with pytest.raises(ContextOverflowError, match="100 tokens, the model's context 100"):
        options.limit(100, 100)


def test_a_max_length_that_the_prompt_exhausts() -> None:
    with pytest.raises(OptionError, match="max_length is 10 and the prompt alone has 12 tokens"):
        GenerationOptions.create(max_length=10).limit(12)


@pytest.mark.parametrize(
    ("package", "caller", "expected"),
    [
        ({}, {"min_new_tokens": 4}, 4),
        ({}, {"min_length": 14}, 4),
        ({}, {"min_length": 4}, 0),
        ({"min_length": 14}, {"min_new_tokens": 1}, 1),
        ({"min_new_tokens": 9}, {"min_length": 14}, 4),
    ],
)
def test_minimum_of_a_prompt_of_ten_tokens(package, caller, expected) -> None:
    assert GenerationOptions.create(package, **caller).minimum(10) == expected


BAD = [
    ({"num_beam": 3}, "unknown option 'num_beam'; did you mean 'num_beams'"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0, expected a whole number from 1"),
    ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5, expected a whole number from 1"),
    ({"num_beams": True}, "num_beams is True, expected a whole number from 1"),
    ({"do_sample": 1}, "do_sample is 1, expected True or False"),
    ({"early_stopping": "always", "num_beams": 2}, "early_stopping is 'always', expected True, False or \"never\""),
    ({"length_penalty": float("nan"), "num_beams": 2}, "length_penalty is nan, expected a finite number"),
    ({"temperature": 0.0, "do_sample": True}, "for greedy search set do_sample=False"),
    ({"temperature": "hot", "do_sample": True}, "temperature is 'hot', expected 0 or a number from 1e-30"),
    ({"top_p": 1.5, "do_sample": True}, "top_p is 1.5, expected a number from 0, at most 1"),
    ({"typical_p": 0, "do_sample": True}, "typical_p is 0, expected a number above 0, at most 1"),
    ({"eta_cutoff": 1, "do_sample": True}, "eta_cutoff is 1, expected a number from 0, below 1"),
    ({"repetition_penalty": 0}, "repetition_penalty is 0, expected a number from 1e-30"),
    ({"logit_bias": {"5": 1, "x": 2}}, "expected a mapping of token ids to numbers from -1e\\+06 to 1e\\+06"),
    ({"logit_bias": [5]}, "expected a mapping of token ids to numbers"),
    ({"top_logprobs": 3, "num_beams": 2}, "top_logprobs is 3 and has no effect without num_beams=1"),
    ({"bad_words_ids": [1, 2]}, "bad_words_ids is \\[1, 2\\], expected a list of non-empty lists of token ids"),
    ({"bad_words_ids": [["x"]]}, "expected a list of non-empty lists of token ids"),
    ({"eos_token_id": -1}, "eos_token_id is -1, expected a token id or a list of token ids"),
    ({"stop_strings": ["a", ""]}, "expected a non-empty string or a list of them"),
    ({"seed": -1}, "seed is -1, expected a whole number from 0"),
    ({"num_return_sequences": 2}, "num_return_sequences is 2, expected at most num_beams \\(1\\)"),
    ({"num_return_sequences": 3, "num_beams": 2, "do_sample": True}, "expected at most num_beams \\(2\\)"),
    ({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}, "expected a divisor of num_beams \\(4\\)"),
    ({"num_beams": 4, "num_beam_groups": 2}, "beam groups need both"),
    ({"num_beams": 4, "diversity_penalty": 0.5}, "beam groups need both"),
    (
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": True},
        "num_beam_groups is 2 with do_sample=True",
    ),
    ({"temperature": 0.5}, "temperature is 0.5 and has no effect without do_sample=True"),
    ({"early_stopping": True}, "early_stopping is True and has no effect without num_beams above 1"),
]


@pytest.mark.parametrize(
    ("options", "message"), BAD, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
def test_bad_options(options, message) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        GenerationOptions.create(**options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EdgellmError)
    assert len(str(caught.value).splitlines()) == 1


def test_all_problems_at_once_and_where_they_come_from() -> None:
    with pytest.raises(OptionError) as caught:
        GenerationOptions.create({"top_k": -5, "no_such_key": 1}, temprature=1, num_return_sequences=2, seed="x")
    assert str(caught.value).splitlines() == [
        "invalid options:",
        "  unknown option 'temprature'; did you mean 'temperature'?",
        "  top_k is -5 in the package's generation_config.json, expected a whole number from 0",
        "  seed is 'x', expected a whole number from 0",
        "  num_return_sequences is 2, expected at most num_beams (1); "
        "raise num_beams, or sample with do_sample=True and num_beams=1",
    ]


def test_what_a_package_carries_may_go_unused() -> None:
    package = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "early_stopping": True}
    options = GenerationOptions.create(package, do_sample=False)
    assert not options.do_sample


def test_zero_temperature_is_greedy_search() -> None:
    assert GenerationOptions.create(temperature=0.0).do_sample is False
    assert GenerationOptions.create({"do_sample": True}, do_sample=False, temperature=0).do_sample is False


def test_token_ids_outside_the_vocabulary() -> None:
    options = GenerationOptions.create(suppress_tokens=[5, 99], bad_words_ids=[[1, 120]], eos_token_id=98)
    options.check_vocabulary(121)
    with pytest.raises(
        OptionError, match=r"eos_token_id holds 98, bad_words_ids holds 120, suppress_tokens holds 99: .*98"
    ):
        options.check_vocabulary(98)
