"""What happens to text that is longer than the context, beside loops that do the same step by step with `logits`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import ContextOverflowError, MemoryBudgetError, OptionError
from edgellm.decoding.shifting import ContextWindow
from edgellm.generation.overflow import fit_source
from tiny_package import BOS, TinyConfig

PackageMaker = Callable[[TinyConfig], Path]

CONTEXT = 32
SMALL = TinyConfig(context_length=CONTEXT)
LONG = TinyConfig(context_length=CONTEXT, long_from=20)
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}


@pytest.fixture(scope="module")
def small(make_package: PackageMaker) -> edgellm.Model:
    return edgellm.load(make_package(SMALL), threads=1, prefill_chunk=8)


def numbers(length: int) -> list[int]:
    return [(37 * i) % 251 for i in range(length)]


def shifting_loop(
    model: edgellm.Model, prompt: Sequence[int], count: int, keep: int, context: int = CONTEXT
) -> tuple[list[int], list[float], int]:
    """Greedy search as the documentation says it. Returns tokens, log-probabilities, and how many were dropped."""
    left, tokens, logprobs, dropped = list(prompt), [], [], 0
    for _ in range(count):
        if len(left) >= context:
            surplus = len(left) - context
            drop = surplus + (context - keep) // 2
            del left[keep : keep + drop]
            dropped += drop
        logits = model.logits(left)[-1].astype(np.float64)
        tokens.append(int(logits.argmax()))
        logprobs.append(float(logits.max() - np.log(np.exp(logits).sum())))
        left.append(tokens[-1])
    return tokens, logprobs, dropped


# shift


@pytest.mark.parametrize("config", [SMALL, LONG], ids=["plain", "two-tables"])
@pytest.mark.parametrize("length", [1, 10, 31, 32, 33, 100])
@pytest.mark.parametrize("keep", [None, 0, 5, 16])
def test_shifting_is_the_documented_loop(
    make_package: PackageMaker, config: TinyConfig, length: int, keep: int | None
) -> None:
    model = edgellm.load(make_package(config), threads=1, prefill_chunk=8)
    prompt = numbers(length)
    found = model.generate(prompt, max_new_tokens=70, overflow="shift", overflow_keep=keep, **WITHOUT_END)
    tokens, logprobs, dropped = shifting_loop(model, prompt, 70, keep or 0)
    assert list(found.tokens) == tokens
    np.testing.assert_allclose(found.logprobs, logprobs, atol=2e-5)
    assert (found.dropped_tokens, found.finish_reason) == (dropped, "length")
    assert found.prompt_tokens == min(length, 31) if length < CONTEXT else CONTEXT


def test_the_bos_token_stays(small: edgellm.Model) -> None:
    prompt = [BOS, *numbers(20)]
    found = small.generate(prompt, max_new_tokens=60, overflow="shift", **WITHOUT_END)
    assert list(found.tokens) == shifting_loop(small, prompt, 60, keep=1)[0]
    assert list(found.tokens) != shifting_loop(small, prompt, 60, keep=0)[0]


def test_streams_go_on_and_tell(small: edgellm.Model) -> None:
    prompt = numbers(40)
    whole = small.generate(prompt, max_new_tokens=60, overflow="shift", **WITHOUT_END)
    pieces = list(small.stream(prompt, max_new_tokens=60, overflow="shift", **WITHOUT_END))
    assert tuple(token for piece in pieces for token in piece.tokens) == whole.tokens
    assert "".join(piece.text for piece in pieces) == whole.text
    assert sum(piece.dropped_tokens for piece in pieces) == whole.dropped_tokens
    assert pieces[0].dropped_tokens == 24  # of the prompt
    assert [i for i, piece in enumerate(pieces) if piece.dropped_tokens] == [0, 16, 32, 48]


@pytest.mark.parametrize(
    "options", [{"do_sample": True, "seed": 3}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}]
)
def test_processors_see_the_whole_text(small: edgellm.Model, options: dict[str, Any]) -> None:
    """Also what was dropped: no pair of tokens comes twice, and the same seed gives the same tokens."""
    prompt = numbers(20)
    found = small.generate(prompt, max_new_tokens=60, overflow="shift", eos_token_id=[], **options)
    again = small.generate(prompt, max_new_tokens=60, overflow="shift", eos_token_id=[], **options)
    assert found.tokens == again.tokens
    if "no_repeat_ngram_size" in options:
        text = [*prompt, *found.tokens]
        pairs = list(pairwise(text))
        assert len(pairs) == len(set(pairs))


def test_with_prompt_lookup(small: edgellm.Model) -> None:
    prompt = [5, 6, 7, 8] * 5
    plain = small.generate(prompt, max_new_tokens=80, overflow="shift", **WITHOUT_END)
    looked_up = small.generate(prompt, max_new_tokens=80, overflow="shift", prompt_lookup=True, **WITHOUT_END)
    assert looked_up.tokens == plain.tokens
    assert looked_up.dropped_tokens == plain.dropped_tokens > 0
    np.testing.assert_allclose(looked_up.logprobs, plain.logprobs, atol=2e-5)


def test_progress_and_cancellation_are_of_the_prompt(small: edgellm.Model) -> None:
    steps: list[tuple[int, int]] = []
    small.reset()
    small.generate(
        numbers(12), max_new_tokens=60, overflow="shift", progress=lambda *s: steps.append(s), eos_token_id=[]
    )
    assert steps == [(8, 12), (12, 12)]

    class SetLater:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 45

    found = small.generate(numbers(12), max_new_tokens=60, overflow="shift", cancel=SetLater(), eos_token_id=[])
    assert found.finish_reason == "cancelled"
    assert 40 <= len(found.tokens) < 50


def test_memory_follows_the_tokens_and_not_the_limit(small: edgellm.Model) -> None:
    """A text without end: what is made ready for it does not depend on how much was asked for."""
    stream = small.stream(numbers(10), max_new_tokens=10**12, overflow="shift", repetition_penalty=1.1, eos_token_id=[])
    tokens = [next(stream).tokens[0] for _ in range(700)]
    stream.close()  # type: ignore[attr-defined]
    options: dict[str, Any] = {
        "max_new_tokens": 700,
        "overflow": "shift",
        "repetition_penalty": 1.1,
        "eos_token_id": [],
    }
    assert tuple(tokens) == small.generate(numbers(10), **options).tokens


def test_windows() -> None:
    assert ContextWindow(10, 3).shifted(list(range(10))) == [0, 1, 2, 6, 7, 8, 9]
    assert ContextWindow(10, 3).shifted(list(range(15))) == [0, 1, 2, 11, 12, 13, 14]
    assert ContextWindow(3, 1).shifted([7, 8, 9]) == [7, 9]


# truncate


@pytest.mark.parametrize(
    ("length", "new", "keep", "left"),
    [
        (20, 12, None, 20),  # fits exactly
        (21, 12, None, 20),
        (100, 12, None, 20),
        (100, 12, 4, 20),
        (100, 100, None, 16),  # no more than half of the context is left free
        (25, 100, 3, 16),
        (31, 1, None, 31),
        (32, 1, None, 31),
    ],
)
def test_truncating_a_prompt(small: edgellm.Model, length: int, new: int, keep: int | None, left: int) -> None:
    prompt = numbers(length)
    cut = prompt if length <= left else [*prompt[: keep or 0], *prompt[length - left + (keep or 0) :]]
    found = small.generate(prompt, max_new_tokens=new, overflow="truncate", overflow_keep=keep, **WITHOUT_END)
    expected = small.generate(cut, max_new_tokens=new, **WITHOUT_END)
    assert (found.tokens, found.logprobs) == (expected.tokens, expected.logprobs)
    assert (found.prompt_tokens, found.dropped_tokens) == (left, length - left)
    assert len(found.tokens) == min(new, CONTEXT - left)
    first = next(small.stream(prompt, max_new_tokens=new, overflow="truncate", overflow_keep=keep, **WITHOUT_END))
    assert first.dropped_tokens == length - left


def test_truncating_batches_and_beams(small: edgellm.Model) -> None:
    prompts = [numbers(50), numbers(5), [BOS, *numbers(60)]]
    for options in ({}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2, "seed": 1}):
        found = small.generate(prompts, max_new_tokens=8, overflow="truncate", **WITHOUT_END, **options)
        cut = [prompts[0][-24:], prompts[1], [BOS, *prompts[2][-23:]]]
        expected = small.generate(cut, max_new_tokens=8, **WITHOUT_END, **options)
        assert [f.sequences for f in found] == [e.sequences for e in expected]
        assert [f.dropped_tokens for f in found] == [26, 0, 37]


def test_max_length_counts_what_is_left(small: edgellm.Model) -> None:
    found = small.generate(numbers(31), max_length=40, overflow="truncate", **WITHOUT_END)
    assert (found.prompt_tokens, len(found.tokens)) == (23, 9)
    with pytest.raises(OptionError, match="max_length is 40 and the prompt alone has 50"):
        small.generate(numbers(50), max_length=40, overflow="truncate")


# Chats


def conversation(turns: int, *, system: bool = True) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "SYS"}] * system
    for i in range(turns):
        messages += [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"answer {i}"}]
    return [*messages, {"role": "user", "content": "last"}]


@pytest.fixture(scope="module")
def chatty(make_package: PackageMaker) -> edgellm.Model:
    return edgellm.load(make_package(TinyConfig(context_length=128)), threads=1)


@pytest.mark.parametrize("system", [True, False])
def test_chats_lose_whole_turns(chatty: edgellm.Model, system: bool) -> None:
    messages = conversation(12, system=system)
    options: dict[str, Any] = {"max_new_tokens": 10, **WITHOUT_END}
    with pytest.raises(ContextOverflowError, match='overflow="truncate"'):
        chatty.chat(messages, **options)
    found = chatty.chat(messages, overflow="truncate", **options)
    lengths = {}
    for first in range(12):
        kept = [*messages[:system], *messages[system + 2 * first :]]
        lengths[first] = len(chatty.tokenizer.encode(chatty.chat_template.render(kept)))  # type: ignore[union-attr]
    dropped = next(first for first in range(12) if lengths[first] + 10 <= 128)
    assert 0 < dropped < 12
    kept = [*messages[:system], *messages[system + 2 * dropped :]]
    assert found.tokens == chatty.chat(kept, **options).tokens
    assert (found.prompt_tokens, found.dropped_tokens) == (lengths[dropped], lengths[0] - lengths[dropped])
    (first_piece, *_) = chatty.stream_chat(messages, overflow="truncate", **options)
    assert first_piece.dropped_tokens == found.dropped_tokens


def test_a_last_turn_that_does_not_fit(chatty: edgellm.Model) -> None:
    messages = [*conversation(3), {"role": "assistant", "content": "ok"}, {"role": "user", "content": "x" * 120}]
    with pytest.raises(ContextOverflowError, match="the chat's last turn, with the system message, has"):
        chatty.chat(messages, overflow="truncate", max_new_tokens=10)


def test_a_turn_is_all_until_the_next_question(chatty: edgellm.Model) -> None:
    """Answers and what tools gave go with their question."""
    turn = [
        {"role": "user", "content": "u" * 20},
        {"role": "assistant", "content": "a" * 20},
        {"role": "tool", "content": "t" * 20},
        {"role": "assistant", "content": "b" * 5},
    ]
    last = [{"role": "user", "content": "now"}]
    found = chatty.chat([*turn, *last], overflow="truncate", max_new_tokens=10, **WITHOUT_END)
    assert found.tokens == chatty.chat(last, max_new_tokens=10, **WITHOUT_END).tokens


def test_shifting_chats_keep_the_system_message(chatty: edgellm.Model) -> None:
    messages = conversation(3)
    system = [259, *b"system\nSYS", 260, *b"\n"]
    found = chatty.chat(messages, overflow="shift", max_new_tokens=200, **WITHOUT_END)
    prompt = chatty.tokenizer.encode(chatty.chat_template.render(messages)).tolist()  # type: ignore[union-attr]
    assert prompt[: len(system)] == system
    tokens, _, dropped = shifting_loop(chatty, prompt, 200, len(system), context=128)
    assert (list(found.tokens), found.dropped_tokens) == (tokens, dropped)
    assert dropped > 100


# Sessions and their budget


def test_a_session_shifts_and_knows_its_tokens(small: edgellm.Model) -> None:
    session, prompt = small.session(), numbers(20)
    found = session.generate(prompt, max_new_tokens=50, overflow="shift", **WITHOUT_END)
    assert list(found.tokens) == shifting_loop(small, prompt, 50, 0)[0]
    left = [*prompt, *found.tokens][found.dropped_tokens :]
    assert session.tokens == tuple(left[:-1])
    assert (
        session.generate([*left, 3], max_new_tokens=3, **WITHOUT_END).tokens
        == small.generate([*left, 3], max_new_tokens=3, **WITHOUT_END).tokens
    )


@pytest.mark.parametrize("overflow", ["truncate", "shift"])
def test_a_budget_overflows_like_a_context(small: edgellm.Model, overflow: str) -> None:
    each = small.info.cache_bytes_per_token
    session = small.session(max_bytes=20 * each)
    prompt = numbers(28)
    with pytest.raises(MemoryBudgetError):
        session.generate(prompt)
    found = session.generate(prompt, max_new_tokens=25, overflow=overflow, **WITHOUT_END)
    if overflow == "shift":
        assert list(found.tokens) == shifting_loop(small, prompt, 25, 0, context=20)[0]
    else:
        assert found.tokens == small.generate(prompt[-10:], max_new_tokens=10, **WITHOUT_END).tokens
    assert session.nbytes <= 20 * each


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overflow": "stretch"}, 'overflow is \'stretch\', expected "error" or "truncate" or "shift"'),
        ({"overflow": 5}, "overflow is 5"),
        ({"overflow_keep": 3}, "overflow_keep is 3 and has no effect without"),
        ({"overflow": "shift", "overflow_keep": -1}, "overflow_keep is -1"),
        ({"overflow": "shift", "num_beams": 2}, "one sequence can shift"),
        ({"overflow": "shift", "do_sample": True, "num_return_sequences": 2}, "one sequence can shift"),
        ({"overflow": "shift", "overflow_keep": 17}, "overflow_keep is 17, expected at most half of the 32 tokens"),
        ({"overflow": "truncate", "overflow_keep": 17}, "overflow_keep is 17, expected at most half of the 32 tokens"),
    ],
)
def test_wrong_options(small: edgellm.Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        small.generate(numbers(40), **options)


def test_what_chats_cannot_keep(chatty: edgellm.Model) -> None:
    messages = [{"role": "system", "content": "s" * 80}, {"role": "user", "content": "Hi"}]
    with pytest.raises(ContextOverflowError, match="the system messages have 90 tokens, which are to stay"):
        chatty.chat(messages, overflow="shift")
    found = chatty.chat(messages, overflow="shift", overflow_keep=5, max_new_tokens=30, **WITHOUT_END)
    prompt = chatty.tokenizer.encode(chatty.chat_template.render(messages)).tolist()  # type: ignore[union-attr]
    assert list(found.tokens) == shifting_loop(chatty, prompt, 30, 5, context=128)[0]
    with pytest.raises(OptionError, match="overflow_keep is 5 and has no effect on a chat"):
        chatty.chat(messages, overflow="truncate", overflow_keep=5)


def test_one_prompt_shifts(small: edgellm.Model) -> None:
    with pytest.raises(OptionError, match="2 prompts, expected one"):
        small.generate([[1, 2], [3, 4]], overflow="shift")


def test_errors_are_the_default(small: edgellm.Model) -> None:
    assert edgellm.GenerationOptions().overflow == "error"
    for options in ({}, {"overflow": "error"}, {"overflow": None}):
        with pytest.raises(ContextOverflowError, match="the prompt has 32 tokens, the model's context is 32"):
            small.generate(numbers(32), **options)
    assert small.generate(numbers(31), max_new_tokens=50, **WITHOUT_END).dropped_tokens == 0


# Sources of encoder-decoders


def test_sources_lose_their_end_but_not_their_end_token() -> None:
    class Special:
        special_ids = frozenset({1, 2})

    options = edgellm.GenerationOptions.create(overflow="truncate")
    source = np.array([9, 10, 11, 12, 13, 14, 2, 1])
    fitted = fit_source(source, options, 5, Special())  # type: ignore[arg-type]
    assert (fitted.tokens.tolist(), fitted.dropped) == ([9, 10, 11, 2, 1], 3)
    assert fit_source(source, options, 8, None).dropped == 0
    assert fit_source(source, options, None, None).tokens is source
    assert fit_source(source, options, 5, None).tokens.tolist() == [9, 10, 11, 12, 13]
    assert fit_source(source, options, 1, Special()).tokens.tolist() == [1]  # type: ignore[arg-type]
