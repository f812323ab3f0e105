"""Prompt lookup: what it drafts, and that a search gets with it exactly what it gets without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgellm
from edgellm.decoding import Ends, GenerationOptions, Hypothesis, PromptLookup, Step, search
from edgellm.decoding.prompt_lookup import DEFAULT_MAX_DRAFT, DEFAULT_MAX_NGRAM, Drafter
from edgellm.errors import OptionError
from reference_models import ReadingDecoder, TableModel, beginnings, finish, table_model
from tiny_package import TinyConfig

COPIED = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]


def searched(
    model, prompts, lookup, decoder=None, ends=None, cancelled=None, **options
) -> tuple[list[Step], list[list[Hypothesis]], Any]:
    """Steps and result of a search with or without prompt lookup, and the lookup."""
    began = beginnings(prompts, Ends((3,), **(ends or {})), prompt_lookup=lookup, **options)
    decoder = decoder or ReadingDecoder(model)
    front = PromptLookup(decoder, began) if lookup else decoder
    return *finish(search(front, began, cancelled)), front


def repetitive_model(seed) -> TableModel:
    """It depends on the last two tokens alone, so that greedy search soon goes round in a circle."""
    model = table_model(seed, sharpness=3)
    model.table[2:] = 0
    return model


class TestDrafter:
    def test_drafts_what_followed_last_time(self) -> None:
        drafter = Drafter([*COPIED, 1, *COPIED[:6]], 3)
        assert drafter.draft(4) == COPIED[6:10]
        assert drafter.draft(2) == COPIED[6:8]
        assert drafter.draft(0) == drafter.draft(-1) == []

    def test_nothing_is_drafted_without_a_repetition(self) -> None:
        assert Drafter(COPIED, 3).draft(9) == []
        assert Drafter([], 3).draft(9) == []

    def test_the_longest_ngram_wins_and_then_the_latest(self) -> None:
        tokens = [7, 1, 2, 9, 6, 1, 2, 3, 50, 8, 2, 3, 60, 7, 1, 2, 3]
        assert tokens[Drafter(tokens, 3)._place] == 50  # after 1 2 3
        assert tokens[Drafter(tokens, 2)._place] == 60  # after 2 3, the latest

    def test_a_single_equal_token_is_not_enough_to_draft(self) -> None:
        assert Drafter([5, 6, 7, 1, 2, 5], 3).draft(9) == []

    def test_a_place_is_followed_as_long_as_it_foretells_what_comes(self) -> None:
        """Not left for a later one, whose context is shorter."""
        drafter = Drafter([*COPIED, 1, 8, 9, 60, 2, *COPIED[:3]], 3)
        drafter.append(8)
        drafter.append(9)
        assert drafter.draft(3) == COPIED[5:8]

    def test_drafts_become_bold_with_success_and_timid_with_failure(self) -> None:
        rng = np.random.default_rng(0)
        text = rng.integers(100, 10000, 400).tolist()
        bold = Drafter([*text, *text[:100]], 3)
        assert len(bold.draft(30)) > 10
        timid = bold
        for i in range(60):  # three tokens as before, then another one
            for token in [*text[6 * i : 6 * i + 3], 20000 + i]:
                timid.append(token)
        timid.append(text[370])
        timid.append(text[371])
        timid.append(text[372])
        assert timid.draft(30) == []

    def test_text_that_never_repeats_as_before_is_hardly_drafted(self) -> None:
        tokens = np.random.default_rng(1).integers(0, 20, 2000).tolist()
        drafter, drafted = Drafter(tokens[:100], 3), 0
        for token in tokens[100:]:
            drafted += len(drafter.draft(10))
            drafter.append(token)
        assert drafted < 0.02 * len(tokens)

    @given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 5))
    def test_it_knows_where_it_is(self, tokens, max_ngram) -> None:
        drafter = Drafter([], max_ngram)
        for token in tokens:
            drafter.append(token)
            here, place, match = drafter.tokens, drafter._place, drafter._match
            assert (match > 0) == (token in here[:-1])
            if match:
                assert match <= place < len(here)
                assert here[place - match : place] == here[len(here) - match :]
        assert drafter.tokens == tokens


OPTIONS: list[dict[str, Any]] = [
    {},
    {"logprobs": True, "repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 4, "min_new_tokens": 20},
    {"do_sample": True, "seed": 3, "temperature": 0.3},
    {"do_sample": True, "seed": 4, "top_k": 2, "temperature": 0.4, "logprobs": True},
    {"forced_eos_token_id": 3, "bad_words_ids": [[1], [4, 5]]},
]


class TestSearch:
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_same_steps_same_result(self, options) -> None:
        accepted = 0
        for seed in range(12):
            model = repetitive_model(seed)
            prompt = [*range(1, 15), *range(1, 8)]
            runs = [searched(model, [prompt], on, max_new_tokens=60, **options) for on in (False, True)]
            assert runs[0][:2] == runs[1][:2]
            accepted += runs[1][2].accepted
        assert accepted > 10 or "no_repeat_ngram_size" in options

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=12), min_size=1, max_size=3),
        st.sampled_from([{}, {"do_sample": True, "seed": 1, "temperature": 0.4, "num_return_sequences": 2}]),
        st.integers(2, 6),
        st.integers(1, 12),
    )
    def test_any_prompts_rows_and_bounds(self, prompts, options, lookahead, num_tokens) -> None:
        model = repetitive_model(7)
        plain = searched(model, prompts, False, max_length=40, **options)
        decoder = ReadingDecoder(model, lookahead)
        bounds = {"prompt_lookup_num_tokens": num_tokens, "max_matching_ngram_size": lookahead}
        found = searched(model, prompts, True, decoder, max_length=40, **bounds, **options)
        assert plain[:2] == found[:2]

    def test_each_accepted_token_saves_a_run(self) -> None:
        model = repetitive_model(2)
        decoder = ReadingDecoder(model)
        steps, _, lookup = searched(model, [[1, 2, 3, 4]], True, decoder, max_new_tokens=80)
        assert decoder.runs == len(steps) - 1 - lookup.accepted
        assert 20 < lookup.accepted <= lookup.drafted

    def test_nothing_is_drafted_beyond_the_last_token(self) -> None:
        class Strict(ReadingDecoder):
            def verify(self, tokens) -> np.ndarray:
                assert len(self.rows[0]) + len(tokens) <= 44 - 1  # the last token is not fed
                return super().verify(tokens)

        model = repetitive_model(2)
        lookup = searched(model, [[1, 2, 3, 4]], True, Strict(model), max_new_tokens=40)[2]
        assert lookup.accepted

    def test_several_rows_are_decoded_together_and_the_last_one_with_drafts(self) -> None:
        model = repetitive_model(2)
        decoder = ReadingDecoder(model)
        stop = {"matches_stop_string": lambda tokens: len(tokens) == 12 and tokens[0] != 1}
        prompts = [[1, 2, 3, 4], [9, 8], [7]]
        plain = searched(model, prompts, False, None, stop, max_new_tokens=60)
        found = searched(model, prompts, True, decoder, stop, max_new_tokens=60)
        assert plain[:2] == found[:2]
        assert len({len(hypotheses[0].tokens) for hypotheses in found[1]}) > 1
        assert found[2].accepted > 5

    def test_cancellation_is_asked_once_per_token(self) -> None:
        model = repetitive_model(2)
        for count in range(1, 30, 3):
            results = []
            for lookup in (False, True):
                answers = iter([False] * count + [True])
                results.append(
                    searched(model, [[1, 2, 3, 4]], lookup, cancelled=answers.__next__, max_new_tokens=60)[:2]
                )
            assert results[0] == results[1]
            assert results[1][1][0][0].finish_reason == "cancelled"

    def test_nothing_runs_after_the_generator_is_closed(self) -> None:
        model = repetitive_model(2)
        decoder, began = ReadingDecoder(model), beginnings([[1, 2]], Ends(), [60], prompt_lookup=True)
        steps = search(PromptLookup(decoder, began), began)
        for _ in range(30):
            next(steps)
        before = decoder.runs
        steps.close()
        assert decoder.runs == before


class TestOptions:
    def test_the_number_of_tokens_is_also_the_switch(self) -> None:
        create = GenerationOptions.create
        assert not create().prompt_lookup
        assert create(prompt_lookup_num_tokens=4).prompt_lookup
        assert create({"prompt_lookup_num_tokens": 4}).prompt_lookup
        assert not create({"prompt_lookup_num_tokens": 4}, prompt_lookup_num_tokens=None).prompt_lookup
        assert not create({"prompt_lookup_num_tokens": 4}, prompt_lookup=False).prompt_lookup
        assert create(prompt_lookup=True, max_matching_ngram_size=2).max_matching_ngram_size == 2

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"prompt_lookup": 1}, "expected True or False"),
            ({"prompt_lookup_num_tokens": 0}, "whole number from 1"),
            ({"max_matching_ngram_size": 0}, "whole number from 1"),
            ({"max_matching_ngram_size": 2}, "no effect without prompt_lookup=True"),
            ({"prompt_lookup": False, "prompt_lookup_num_tokens": 5}, "no effect without prompt_lookup=True"),
            ({"prompt_lookup": True, "num_beams": 2}, "no effect without num_beams=1"),
            ({"prompt_lookup_num_tokens": 5, "num_beams": 2}, "no effect without num_beams=1"),
        ],
        ids=str,
    )
    def test_refused(self, options, message) -> None:
        with pytest.raises(OptionError, match=message):
            GenerationOptions.create(**options)

    def test_what_a_package_carries_does_not_disturb_beams(self) -> None:
        assert GenerationOptions.create({"prompt_lookup_num_tokens": 5}, num_beams=2).num_beams == 2


PROMPT = [*range(40, 60), *range(40, 48)]


class TestModel:
    @pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 0.05, "seed": 2}], ids=str)
    def test_same_tokens(self, model, options) -> None:
        options = {"max_new_tokens": 60, "eos_token_id": [], "logprobs": True, **options}
        plain = model.generate(PROMPT, **options)
        model.reset()
        found = model.generate(PROMPT, prompt_lookup=True, **options)
        assert found.tokens == plain.tokens
        np.testing.assert_allclose(found.logprobs, plain.logprobs, atol=1e-5)
        assert 0 < found.timing.accepted_tokens <= found.timing.drafted_tokens
        assert (plain.timing.drafted_tokens, plain.timing.accepted_tokens) == (0, 0)
        pieces = list(model.stream(PROMPT, prompt_lookup=True, **options))
        assert [token for piece in pieces for token in piece.tokens] == list(plain.tokens)

    def test_the_context_is_used_to_its_end(self, model) -> None:
        plain = model.generate(PROMPT, max_new_tokens=500, eos_token_id=[])
        found = model.generate(PROMPT, max_new_tokens=500, eos_token_id=[], prompt_lookup=True)
        assert found.tokens == plain.tokens
        assert len(PROMPT) + len(found.tokens) == model.info.context_length

    def test_a_stop_string_inside_a_draft(self, model) -> None:
        text = model.generate(PROMPT, max_new_tokens=60, eos_token_id=[]).text
        for start in range(20, 40):
            stop = text[start : start + 3]
            options = {"max_new_tokens": 60, "eos_token_id": [], "stop_strings": stop}
            plain, found = (model.generate(PROMPT, prompt_lookup=lookup, **options) for lookup in (False, True))
            assert (found.text, found.finish_reason) == (plain.text, plain.finish_reason)

    def test_the_next_prompt_may_continue_what_was_cut_off_inside_a_draft(self, model) -> None:
        for count in range(30, 40):
            model.reset()
            stream = model.stream(PROMPT, max_new_tokens=60, eos_token_id=[], prompt_lookup=True)
            tokens = [next(stream).tokens[0] for _ in range(count)]
            stream.close()
            turn = [*PROMPT, *tokens, 7, 8]
            after = model.generate(turn, max_new_tokens=8)
            model.reset()
            assert after.tokens == model.generate(turn, max_new_tokens=8).tokens

    def test_small_chunks_bound_the_drafts(self, package) -> None:
        model = edgellm.load(package, threads=1, prefill_chunk=3)
        plain, found = (
            model.generate(PROMPT, max_new_tokens=60, eos_token_id=[], prompt_lookup=lookup) for lookup in (False, True)
        )
        assert found.tokens == plain.tokens
        assert found.timing.drafted_tokens

    def test_beyond_the_length_at_which_the_rotary_tables_change(self, make_package) -> None:
        model = edgellm.load(make_package(TinyConfig(long_from=50)), threads=1)
        plain, found = (
            model.generate(PROMPT, max_new_tokens=60, eos_token_id=[], prompt_lookup=lookup) for lookup in (False, True)
        )
        assert found.tokens == plain.tokens
        assert found.timing.accepted_tokens


def test_the_defaults_are_in_the_documentation() -> None:
    table = (Path(__file__).parents[3] / "docs" / "python-api.md").read_text()
    assert f"| `prompt_lookup_num_tokens` | {DEFAULT_MAX_DRAFT} |" in table
    assert f"| `max_matching_ngram_size` | {DEFAULT_MAX_NGRAM} |" in table
