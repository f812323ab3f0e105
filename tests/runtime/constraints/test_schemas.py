"""400 schemas: what any logits make of them parses, and is what jsonschema says they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import jsonschema
import numpy as np
import pytest
import tokenizers

from edgellm.constraints import Constraints
from edgellm.decoding import Beginning, Ends, GenerationOptions, SequencePlan, search
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import FloatArray
from json_schemas import made

COUNT, EOS = 400, 0
ENDING = '"]},0123456789'  # so that texts come to an end: tokens that begin so are likelier


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of byte pairs that JSON is made of."""
    trained = tokenizers.ByteLevelBPETokenizer()
    corpus = [json.dumps(schema, ensure_ascii=False) for _, schema in made(120)]
    trained.train_from_iterator(corpus, vocab_size=700, special_tokens=["<|end|>"], show_progress=False)
    return Tokenizer(trained._tokenizer)


class NoisyDecoder:
    """Random logits for one row: every text that is allowed may come."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        texts = [tokenizer.token_of(i) for i in range(tokenizer.vocab_size)]
        self.bias = np.array([4.0 * (text[:1] in ENDING and text != "") for text in texts], np.float32)
        self.bias[EOS] = 4.0
        self.rng = np.random.default_rng(seed)

    def prefill(self, prompts: Sequence[Any], sources: Any = None, reading: Any = None) -> FloatArray:
        return self.decode(np.zeros(1, np.int64))

    def decode(self, tokens: Any) -> FloatArray:
        return self.rng.standard_normal((1, len(self.bias))).astype(np.float32) * 3 + self.bias

    def reorder(self, parents: Any) -> None:
        raise AssertionError


def generated(schema: Any, tokenizer: Tokenizer, constraints: Constraints, seed: int) -> tuple[str, str, bool | None]:
    """A text, why it ended, and whether it says that it is complete."""
    options = GenerationOptions.create(json_schema=schema, max_new_tokens=600, do_sample=True, seed=seed)
    plan = SequencePlan.create(options, Ends((EOS,)), constraints.of(options, tokenizer, tokenizer.vocab_size))
    steps = search(NoisyDecoder(tokenizer, seed), [Beginning(np.array([5]), plan, options.limit(1))])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ((hypothesis,),) = end.value
            return tokenizer.decode(hypothesis.tokens), hypothesis.finish_reason, hypothesis.complete


def check(text: str, schema: Any) -> None:
    """Numbers are decimal, in text and schema: 0.3 is a multiple of 0.1."""
    instance = json.loads(text, parse_float=Decimal)
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    validator = jsonschema.Draft202012Validator(exact, format_checker=FORMATS)
    errors = [f"{text}: {error.message}" for error in validator.iter_errors(instance)]
    assert errors == []


FORMATS = jsonschema.FormatChecker(["email", "ipv4", "ipv6", "uuid"])


@FORMATS.checks("date", ValueError)
def is_date(value: Any) -> bool:
    """Of the year 0, too, which RFC 3339 has and Python has not."""
    return not isinstance(value, str) or bool(date.fromisoformat(re.sub("^0000", "2000", value)))


@FORMATS.checks("time", ValueError)
def is_time(value: Any) -> bool:
    """With leap seconds, and any digits behind seconds."""
    known = re.sub(r"(\d\d:\d\d:)60", r"\g<1>59", str(value)).upper()
    return bool(time.fromisoformat(re.sub(r"\.\d+", "", known)))


@FORMATS.checks("date-time", ValueError)
def is_date_time(value: Any) -> bool:
    return not isinstance(value, str) or (is_date(value[:10]) and value[10] in "Tt" and is_time(value[11:]))


def test_every_answer_parses_and_validates(tokenizer: Tokenizer, record_property: Any) -> None:
    constraints = Constraints()
    whole = 0
    for seed, (name, schema) in enumerate(made(COUNT)):
        text, reason, complete = generated(schema, tokenizer, constraints, seed)
        assert (complete, reason) in {(True, "eos"), (False, "length")}, (name, text)
        if complete:
            check(text, schema)
            whole += 1
    record_property("complete", whole)
    assert whole >= 0.97 * COUNT
