"""Constraints in a search, by one of a few words of tokens: transformers' prefix_allowed_tokens_fn is the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgellm.decoding import Beginning, Ends, GenerationOptions, PromptLookup, SequencePlan, search, step
from edgellm.decoding.choice import log_softmax
from edgellm.decoding.prompt_lookup import RowDrafter
from edgellm.errors import ProviderError
from edgellm.types import BoolArray
from reference_models import FullDecoder, ReadingDecoder, finish, table_model, transformers_generate

VOCAB, EOS = 40, 3
LONG = (20, 21, 22, 23, 24, 25, 26)
WORDS = ((5, 6, 7), (5, 6), (5, 9, 9, 9), (8, 6, 7), (8, 11, 12, 13), (30,), (31, 32, 33, 34, 35), LONG)
PROMPT = [4, 17]


@dataclass
class WordState:
    words: Sequence[tuple[int, ...]]
    said: tuple[int, ...] = ()

    @property
    def may_end(self) -> bool:
        return self.said in self.words

    @property
    def may_go_on(self) -> bool:
        return bool(self._next())

    def allowed(self) -> BoolArray:
        mask = np.zeros(VOCAB, np.bool_)
        mask[self._next()] = True
        return mask

    def forced(self) -> list[int]:
        state, tokens = self.copy(), []
        while len(state._next()) == 1 and not state.may_end:
            tokens += state._next()
            state.advance(tokens[-1])
        return tokens

    def accepted(self, tokens: Sequence[int]) -> int:
        longer = [self.said + tuple(tokens[: n + 1]) for n in range(len(tokens))]
        return sum(any(word[: len(said)] == said for word in self.words) for said in longer)

    def advance(self, token: int) -> None:
        assert token in self._next()
        self.said += (token,)

    def copy(self) -> WordState:
        return replace(self)

    def _next(self) -> list[int]:
        at = len(self.said)
        return sorted({word[at] for word in self.words if word[:at] == self.said and len(word) > at})


@dataclass
class Words:
    words: Sequence[tuple[int, ...]] = WORDS

    def begin(self) -> WordState:
        return WordState(self.words)


def beginning(constraint: Words | None, prompt=PROMPT, ends=None, source=None, **options) -> Beginning:
    checked = GenerationOptions.create(**{"max_new_tokens": 12, **options})
    plan = SequencePlan.create(checked, Ends((EOS,)) if ends is None else ends, constraint)
    return Beginning(np.array(prompt), plan, checked.limit(len(prompt)), source)


def found(model, *beginnings, decoder=None) -> list[list[Any]]:
    return finish(search(decoder or FullDecoder(model), beginnings))[1]


def texts(hypotheses) -> list[tuple[int, ...]]:
    return [h.tokens[:-1] if h.finish_reason == "eos" else h.tokens for h in hypotheses]


def prefix_function(words=WORDS) -> Any:
    def allowed(_, ids) -> list[int]:
        state = WordState(words, tuple(ids.tolist()[len(PROMPT) :]))
        return [*state._next(), *[EOS] * state.may_end] or [EOS]

    return allowed


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.4}, {"num_beams": 3}, {"num_beams": 4, "n": 4}])
@pytest.mark.parametrize("seed", range(6))
def test_as_transformers(seed: int, options: dict[str, Any]) -> None:
    model, count = table_model(seed), options.get("n", 1)
    options = {name: value for name, value in options.items() if name != "n"}
    if count > 1:
        options["num_return_sequences"] = count
    (ours,) = found(model, beginning(Words(), **options))
    theirs, scores = transformers_generate(
        model, PROMPT, (EOS,), max_new_tokens=12, prefix_allowed_tokens_fn=prefix_function(), **options
    )
    assert [h.tokens for h in ours] == theirs
    assert all(text in WORDS for text in texts(ours))
    assert all((h.finish_reason, h.complete) == ("eos", True) for h in ours)
    if scores is not None:
        np.testing.assert_allclose([h.score for h in ours], scores, rtol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_sampling_says_words(seed: int) -> None:
    options = {"do_sample": True, "seed": seed, "temperature": 3.0, "num_return_sequences": 4}
    (sampled,) = found(table_model(seed), beginning(Words(), **options))
    assert all(text in WORDS for text in texts(sampled))
    assert all(h.complete for h in sampled)


def test_sampling_has_the_models_odds() -> None:
    """Among what is allowed, with top_k behind the constraint: the best allowed ones, not what is left of the best."""
    model = table_model(1)
    (sampled,) = found(
        model, beginning(Words(), do_sample=True, seed=0, top_k=2, num_return_sequences=400, max_new_tokens=1)
    )
    firsts = sorted({word[0] for word in WORDS})
    logits = FullDecoder(model).prefill([np.array(PROMPT)])[0][firsts]
    best = np.argsort(-logits)[:2]
    odds = np.exp(log_softmax(logits[best]))
    counts = [sum(h.tokens == (firsts[i],) for h in sampled) for i in best]
    assert sum(counts) == 400
    np.testing.assert_allclose(np.array(counts) / 400, odds, atol=0.08)


@pytest.mark.parametrize("seed", range(4))
def test_each_prompt_of_a_batch_gets_what_it_gets_alone(seed: int) -> None:
    model = table_model(seed)
    batch = [
        beginning(Words(), [4, 17]),
        beginning(None, [6]),
        beginning(Words(WORDS[:3]), [9, 9, 9], do_sample=True, seed=5, num_return_sequences=2),
        beginning(Words(), [11], num_beams=3),
        beginning(None, [4, 17], do_sample=True, seed=1),
        beginning(Words(), [4, 17], prompt_lookup=True),
    ]
    together = found(model, *batch)
    assert together == [found(model, one)[0] for one in batch]
    assert [hypotheses[0].complete for hypotheses in together] == [True, None, True, True, None, True]


def test_a_step_of_sequences_with_plans_of_their_own() -> None:
    sequences = [beginning(Words()).sequence(0), beginning(None).sequence(1), beginning(Words(((7,),))).sequence(2)]
    logits = np.tile(np.linspace(0, 1, VOCAB, dtype=np.float32), (3, 1))
    assert [e.token for e in step(sequences, logits)] == [31, 39, 7]
    assert [e.token for e in step(sequences, logits)] == [32, 39, EOS]
    assert [s.complete for s in sequences] == [None, None, True]


def test_log_probabilities_are_the_models_own() -> None:
    model = table_model(2)
    (ours,) = found(model, beginning(Words(), logprobs=True))[0]
    decoder = FullDecoder(model)
    logits = decoder.prefill([np.array(PROMPT)])
    for token, logprob in zip(ours.tokens, ours.logprobs, strict=True):
        assert logprob == pytest.approx(float(log_softmax(logits)[0, token]), abs=1e-5)
        logits = decoder.decode(np.array([token]))


def test_without_an_end_token_it_ends_where_nothing_may_follow() -> None:
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 2}):
        (hypothesis,) = found(table_model(0), beginning(Words(((5, 6, 7), (5, 6))), ends=Ends(), **options))[0]
        assert (hypothesis.tokens, hypothesis.finish_reason, hypothesis.complete) == ((5, 6, 7), "eos", True)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_what_is_cut_off_says_so(num_beams: int) -> None:
    words = Words((LONG,))
    (cut,) = found(table_model(0), beginning(words, max_new_tokens=4, num_beams=num_beams))[0]
    assert (cut.tokens, cut.finish_reason, cut.complete) == (LONG[:4], "length", False)
    (whole,) = found(table_model(0), beginning(words, max_new_tokens=7, num_beams=num_beams))[0]
    assert (whole.tokens, whole.finish_reason, whole.complete) == (LONG, "length", True)


@dataclass
class Stuck(WordState):
    """Behind 5 nothing follows, and that is no end."""

    @property
    def may_end(self) -> bool:
        return super().may_end and self.said != (5,)

    def copy(self) -> Stuck:
        return replace(self)


@dataclass
class StuckWords(Words):
    def begin(self) -> Stuck:
        return Stuck(self.words)


def test_what_is_stuck_ends_by_itself() -> None:
    (hypothesis,) = found(table_model(0), beginning(StuckWords(((5,),))))[0]
    assert (hypothesis.tokens, hypothesis.finish_reason, hypothesis.complete) == ((5,), "constraint", False)
    (hypothesis,) = found(table_model(0), beginning(StuckWords(((5,),)), num_beams=3))[0]
    assert (hypothesis.tokens, hypothesis.finish_reason, hypothesis.complete) == ((5,), "constraint", False)


def test_beams_that_are_stuck_make_room_for_others() -> None:
    words = ((5,), (6,), (7, 8))
    for seed in range(5):
        (hypotheses,) = found(
            table_model(seed), beginning(StuckWords(words), num_beams=3, num_return_sequences=3, length_penalty=0.0)
        )
        assert set(texts(hypotheses)) == {(6,), (7, 8)}


@pytest.mark.parametrize(
    "options",
    [
        {"min_new_tokens": 9},
        {"suppress_tokens": [EOS, *range(20, 27)]},
        {"bad_words_ids": [[22], [21, 22]]},
        {"no_repeat_ngram_size": 1},
        {"forced_eos_token_id": EOS, "max_new_tokens": 5},
    ],
)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_constraint_wins_over_options_that_leave_nothing(options: dict[str, Any], num_beams: int) -> None:
    prompt = [20, 21, 22, 23, 24, 25, 26, EOS, 20]
    (hypothesis,) = found(table_model(0), beginning(Words((LONG,)), prompt, num_beams=num_beams, **options))[0]
    whole = hypothesis.finish_reason == "eos"
    assert hypothesis.tokens == (*LONG, EOS) if whole else hypothesis.tokens == LONG[: options["max_new_tokens"]]
    assert hypothesis.complete is whole


def test_other_options_choose_among_what_is_allowed() -> None:
    model = table_model(0)
    plain = texts(found(model, beginning(Words()))[0])[0]
    (other,) = texts(found(model, beginning(Words(), bad_words_ids=[[plain[0]]]))[0])
    assert other in WORDS
    assert other[0] != plain[0]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_forced_first_token_is_no_part_of_the_text(num_beams: int) -> None:
    """As of BART's targets, and those of models with language codes."""
    began = beginning(Words(), [2], source=np.array([7, 8]), forced_bos_token_id=0, num_beams=num_beams)
    (hypothesis,) = found(table_model(0), began)[0]
    assert hypothesis.tokens[0] == 0
    assert hypothesis.tokens[1:-1] in WORDS
    assert hypothesis.complete


def test_logits_that_are_no_numbers_are_the_models_fault() -> None:
    sequence = beginning(Words()).sequence(0)
    with pytest.raises(ProviderError, match="not numbers"):
        step([sequence], np.full((1, VOCAB), np.nan, np.float32))


# forced stretches


def run_both(model, words, prompt=PROMPT, lookahead=99, **options) -> tuple[Any, Any, Any]:
    plain = found(model, beginning(words, prompt, **options))
    began = beginning(words, prompt, **options)
    decoder = ReadingDecoder(model, lookahead)
    front = PromptLookup(decoder, [began])
    return plain, finish(search(front, [began]))[1], front


@pytest.mark.parametrize("prompt_lookup", [False, True])
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 4, "temperature": 2.0}, {"logprobs": True}])
def test_forced_stretches_are_read_in_one_run(options: dict[str, Any], prompt_lookup: bool) -> None:
    for seed in range(8):
        plain, drafted, front = run_both(table_model(seed), Words(), prompt_lookup=prompt_lookup, **options)
        assert drafted == plain
    plain, drafted, front = run_both(table_model(0), Words((LONG,)), prompt_lookup=prompt_lookup, **options)
    assert drafted == plain
    assert (front.drafted, front.accepted) == (6, 6)
    assert front._decoder.runs == 1


@pytest.mark.parametrize(("lookahead", "accepted"), [(1, 0), (2, 3), (4, 5)])
def test_no_more_is_drafted_than_the_engine_reads(lookahead: int, accepted: int) -> None:
    plain, drafted, front = run_both(table_model(0), Words((LONG,)), lookahead=lookahead)
    assert drafted == plain
    assert front.accepted == accepted


def test_no_more_is_drafted_than_may_come() -> None:
    plain, drafted, front = run_both(table_model(0), Words((LONG,)), max_new_tokens=4)
    assert drafted == plain
    assert front.drafted == 2  # the last one is chosen, not read


def test_a_draft_is_cut_where_the_constraint_forbids_it() -> None:
    """The prompt has 5 9 9 7 again and again: 7 is drafted behind 5 9 9 without a constraint, and not with it."""
    prompt = [5, 9, 9, 7, 1] * 4
    assert RowDrafts(None, prompt).draft([5, 9])[:2] == [9, 7]
    assert RowDrafts(Words(((5, 9, 9, 9), (5, 9, 8))), prompt).draft([5, 9])[:2] == [9]
    assert RowDrafts(Words(((5, 9, 9, 7), (5, 9, 8))), prompt).draft([5, 9])[:2] == [9, 7]


class RowDrafts:
    def __init__(self, constraint, prompt) -> None:
        self.began = beginning(constraint, prompt, prompt_lookup=True)

    def draft(self, tokens) -> list[int]:
        drafter = RowDrafter([*self.began.prompt.tolist(), tokens[0]], self.began)
        for _, token in pairwise(tokens):
            drafter.append(token)
        return drafter.draft(9)


def test_an_encoder_decoder_drafts_nothing() -> None:
    assert beginning(Words()).drafts
    assert not beginning(Words(), source=np.array([1])).drafts
    assert not beginning(Words(), num_beams=2).drafts
    assert not beginning(None).drafts
