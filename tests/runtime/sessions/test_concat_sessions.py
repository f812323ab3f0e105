"""Sessions of graphs that concatenate their cache, also of those that cannot do all that a session would like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import save_model

import edgellm
from concat_directory import CONTEXT, VOCAB, Flaws, toy_graph, write_directory
from edgellm import MemoryBudgetError, SessionMismatchError

FLAWS = {
    "none": Flaws(),
    "counts padding": Flaws(counts_padding=True),
    "sees ahead": Flaws(sees_ahead=True),
    "shares a scale": Flaws(shares_scale=True),
}
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}
TEXT = np.random.default_rng(3).integers(2, VOCAB - 1, 30).tolist()


@pytest.fixture(params=FLAWS)
def flawed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, edgellm.Model]:
    path = write_directory(tmp_path / "toy", FLAWS[request.param])
    return request.param, edgellm.load(path, threads=1, prefill_chunk=4)


def assert_same(found: edgellm.Generation, expected: edgellm.Generation) -> None:
    assert found.tokens == expected.tokens
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def alone(model: edgellm.Model, prompt: list[int], **options: Any) -> edgellm.Generation:
    model.reset()
    return model.generate(prompt, **{"max_new_tokens": 6, **WITHOUT_END, **options})


def test_turns_trims_and_forks(flawed: tuple[str, edgellm.Model]) -> None:
    name, model = flawed
    session = model.session()
    first = session.generate(TEXT, max_new_tokens=6, **WITHOUT_END)
    assert_same(first, alone(model, TEXT))
    takes_chunks = name not in ("sees ahead", "shares a scale")
    assert session.tokens == (*TEXT, *first.tokens[:-1])
    assert session.reusable_tokens == (35 if takes_chunks else 0)
    turn = [*TEXT, *first.tokens, 3, 4]
    fork = session.fork()
    assert_same(session.generate(turn, max_new_tokens=6, **WITHOUT_END), alone(model, turn))
    other = [*TEXT[:10], 9, 9]
    fork.trim(10)
    assert_same(fork.generate(other, max_new_tokens=6, **WITHOUT_END), alone(model, other))
    assert session.tokens[: len(turn)] == tuple(turn)


def test_beams_leave_the_prompt(flawed: tuple[str, edgellm.Model]) -> None:
    _, model = flawed
    session = model.session()
    found = session.generate(TEXT, num_beams=3, max_new_tokens=6, **WITHOUT_END)
    assert found.tokens == alone(model, TEXT, num_beams=3).tokens
    assert session.tokens == tuple(TEXT)
    assert session.nbytes == 30 * model.info.cache_bytes_per_token


def test_saved_and_loaded(flawed: tuple[str, edgellm.Model], tmp_path: Path) -> None:
    _, model = flawed
    session = model.session()
    session.generate(TEXT, max_new_tokens=6, **WITHOUT_END)
    session.save(tmp_path / "s")
    loaded = model.load_session(tmp_path / "s")
    assert (loaded.tokens, loaded.reusable_tokens) == (session.tokens, session.reusable_tokens)
    turn = [*session.tokens, 5, 6]
    found, expected = (s.generate(turn, max_new_tokens=6, **WITHOUT_END) for s in (loaded, session))
    assert (found.tokens, found.logprobs) == (expected.tokens, expected.logprobs)  # the same bits


def test_a_changed_graph_is_another_model(tmp_path: Path) -> None:
    """Such directories have no hashes; they are computed when they are needed."""
    path = write_directory(tmp_path / "toy")
    session = edgellm.load(path).session()
    session.prefill(TEXT)
    session.save(tmp_path / "s")
    assert edgellm.load(path).load_session(tmp_path / "s").tokens == tuple(TEXT)
    save_model(toy_graph(Flaws(counts_padding=True)), path / "model.onnx")
    with pytest.raises(SessionMismatchError, match="another model"):
        edgellm.load(path).load_session(tmp_path / "s")


def test_the_budget_counts_the_copy_that_a_step_makes(tmp_path: Path) -> None:
    model = edgellm.load(write_directory(tmp_path / "toy"), threads=1)
    each = model.info.cache_bytes_per_token
    session = model.session(max_bytes=80 * each)
    assert session.max_tokens == 40
    result = session.generate(TEXT, max_new_tokens=50, **WITHOUT_END)
    assert len(result.tokens) == 10
    assert session.nbytes <= 40 * each
    with pytest.raises(MemoryBudgetError):
        session.prefill([3] * 40)
    assert session.tokens == (*TEXT, *result.tokens[:-1])


def test_shifting(flawed: tuple[str, edgellm.Model]) -> None:
    _, model = flawed
    found = model.generate(TEXT, max_new_tokens=CONTEXT + 10, overflow="shift", **WITHOUT_END)
    left = list(TEXT)
    for token in found.tokens:
        if len(left) >= CONTEXT:
            del left[: CONTEXT // 2]
            assert token == model.logits(left)[-1].argmax()
        left.append(token)
    assert found.dropped_tokens == CONTEXT
