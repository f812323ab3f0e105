"""Sessions and overflow on checkpoints of every kind of position, cache and precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from comparison import prompt, relative_rms
from edgellm import SessionError, SessionMismatchError
from edgellm.ort.kernels import library
from test_independence import LOGITS, assert_same

# Absolute positions, rope, its scalings, windows, norms of queries and keys, softcaps, two kinds of layers, short
# convolutions, latents.
NAMES = [
    "gpt2", "llama-one-kv-head", "llama-linear", "llama-yarn", "phi3-longrope", "mistral-sliding", "qwen3", "gemma2",
    "gemma3", "lfm2", "deepseek_v2", "gemma3n",
]  # fmt: skip
DYNAMIC = "llama-dynamic"
OURS = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}


@pytest.fixture(scope="module")
def load_kind(
    load: Callable[..., edgellm.Model], package: Callable[..., Path], package_int8: Callable[[str], Path]
) -> Callable[[str, str], edgellm.Model]:
    """A model by family and kind: weights, or, under float32 weights, "kv-int8" for a cache of int8, "kv-bfloat16"."""

    @cache
    def make(name: str, kind: str) -> edgellm.Model:
        if kind == "kv-bfloat16":
            return edgellm.load(package(name), threads=1, kv_cache="bfloat16")
        return edgellm.load(package_int8(name), threads=1) if kind == "kv-int8" else load(name, kind)

    return make


def next_logits(session: edgellm.GenerationSession, ids: list[int]) -> np.ndarray:
    """[vocab] behind a prompt, from what the session holds and the rest."""
    engine = session._holder.engine
    return engine.prefill([np.array(ids, np.int64)])[0].copy()


@pytest.mark.parametrize("kind", ["fp32", "int8", "kv-int8", pytest.param("kv-bfloat16", marks=OURS)])
@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded(name: str, kind: str, load_kind: Callable[..., edgellm.Model], tmp_path: Path) -> None:
    """What is loaded continues as what was saved, to the last bit of every logit; so does a fork."""
    model = load_kind(name, kind)
    ids = prompt(name, 34).tolist()
    session = model.session()
    session.generate(ids[:20], max_new_tokens=9, **WITHOUT_END)
    session.save(tmp_path / "s")
    loaded, fork = model.load_session(tmp_path / "s"), session.fork()
    assert loaded.tokens == fork.tokens == session.tokens
    assert loaded.reusable_tokens == session.reusable_tokens >= 18
    for longer in ([*ids[:20], 7, 8], [*session.tokens, 5, 6, 7], ids):
        expected = next_logits(session, longer)
        np.testing.assert_array_equal(next_logits(loaded, longer), expected)
        np.testing.assert_array_equal(next_logits(fork, longer), expected)
        assert relative_rms(expected, model.logits(longer)[-1]) < LOGITS.get(kind, 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma3", "phi3-longrope", "lfm2", "gemma3n"])
def test_turns(name: str, precision: str, load: Callable[..., edgellm.Model]) -> None:
    """Each turn is what the whole conversation as one prompt gives."""
    model = load(name, precision)
    text = prompt(name, 12).tolist()
    with model.session() as session:
        for turn in range(3):
            found = session.generate(text, max_new_tokens=10, **WITHOUT_END)
            model.reset()
            assert_same(model, found, model.generate(text, max_new_tokens=10, **WITHOUT_END))
            text += [*found.tokens, 11 + turn, 12 + turn]


def test_generated_tokens_are_reused_on_request(package: Callable[..., Path]) -> None:
    """With int8 weights and a float cache, on ONNX Runtime's kernels: sooner, and off by about the quantization error,
    not more."""
    model = edgellm.load(package("qwen3", "int8"), threads=1, kernels="off")
    assert model.manifest.decoding_rounds_apart
    text = prompt("qwen3", 20).tolist()
    exact, sooner = model.session(), model.session(reuse_generated=True)
    answers = [session.generate(text, max_new_tokens=30, **WITHOUT_END) for session in (exact, sooner)]
    assert answers[0].tokens == answers[1].tokens
    assert (exact.reusable_tokens, sooner.reusable_tokens) == (20, 49)
    turn = [*text, *answers[0].tokens, 5, 6]
    expected = model.logits(turn)[-1]
    assert relative_rms(next_logits(exact, turn), expected) < LOGITS["int8"]
    assert relative_rms(next_logits(sooner, turn), expected) < 0.05


def test_what_was_taken_over_is_never_taken_for_exact(package: Callable[..., Path], tmp_path: Path) -> None:
    """Tokens read behind generated ones are as far off as those; a session that wants exact numbers reads again."""
    model = edgellm.load(package("qwen3", "int8"), threads=1, kernels="off")
    text = prompt("qwen3", 20).tolist()
    session = model.session(reuse_generated=True)
    turn = [*text, *session.generate(text, max_new_tokens=10, **WITHOUT_END).tokens, 5, 6, 7]
    session.prefill(turn)
    assert session.reusable_tokens == len(turn) == 33
    session.save(tmp_path / "s")
    assert model.load_session(tmp_path / "s", reuse_generated=True).reusable_tokens == 33
    loaded = model.load_session(tmp_path / "s")
    assert loaded.reusable_tokens == 20
    assert relative_rms(next_logits(loaded, [*turn, 8]), model.logits([*turn, 8])[-1]) < LOGITS["int8"]


def test_tables_that_change_with_every_token(load: Callable[..., edgellm.Model], tmp_path: Path) -> None:
    model = load(DYNAMIC)
    session, ids = model.session(), prompt(DYNAMIC, 40)
    for length in (20, 30, 40):
        found = session.generate(ids[:length], max_new_tokens=5, **WITHOUT_END)
        model.reset()
        assert_same(model, found, model.generate(ids[:length], max_new_tokens=5, **WITHOUT_END))
        assert session.reusable_tokens == 0
    with pytest.raises(SessionError, match="change with every token"):
        session.save(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_files_of_other_exports(load_kind: Callable[..., edgellm.Model], tmp_path: Path) -> None:
    """The same checkpoint in another precision or with another cache is another model."""
    session = load_kind("qwen3", "fp32").session()
    session.prefill([1, 2, 3])
    session.save(tmp_path / "s")
    for other in (("qwen3", "int8"), ("qwen3", "kv-int8"), ("gpt2", "fp32")):
        with pytest.raises(SessionMismatchError, match="another model"):
            load_kind(*other).load_session(tmp_path / "s")


@pytest.mark.parametrize("kind", ["fp32", "int8", "kv-int8"])
@pytest.mark.parametrize("name", [*NAMES, DYNAMIC])
def test_shifting_reads_what_is_left(name: str, kind: str, load_kind: Callable[..., edgellm.Model]) -> None:
    """Each token has the log-probability that `logits` gives it behind the window that the documentation describes."""
    model = load_kind(name, kind)
    context, keep = model.manifest.context_length, 3
    left = prompt(name, 20).tolist()
    found = model.generate(left, max_new_tokens=context + 30, overflow="shift", overflow_keep=keep, **WITHOUT_END)
    assert found.logprobs is not None
    dropped, checked = 0, 0
    for token, logprob in zip(found.tokens, found.logprobs, strict=True):
        if len(left) >= context:
            drop = (context - keep) // 2
            del left[keep : keep + drop]
            # Dynamic tables change with every token, so that only the first one is what reading at once would give.
            dropped, checked = dropped + drop, 1 if name == DYNAMIC else 6
        if checked:
            logits = model.logits(left)[-1].astype(np.float64)
            wanted = logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            assert abs(logprob - wanted) < (0.05 if kind == "int8" else 1e-3)
            assert kind == "int8" or token == logits.argmax()
            checked -= 1
        left.append(token)
    assert found.dropped_tokens == dropped > 0


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_a_long_prompt_is_cut(name: str, load: Callable[..., edgellm.Model]) -> None:
    model = load(name)
    ids = np.concatenate([prompt(name, 60, seed) for seed in range(4)])
    room = model.manifest.context_length - 20
    found = model.generate(ids, max_new_tokens=20, overflow="truncate", **WITHOUT_END)
    bos = int(ids[0] == model.manifest.tokens.bos)
    cut = np.concatenate([ids[:bos], ids[len(ids) - room + bos :]])
    assert_same(model, found, model.generate(cut, max_new_tokens=20, **WITHOUT_END))
    assert (found.prompt_tokens, found.dropped_tokens) == (room, len(ids) - room)


@pytest.mark.real_model
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_model(
    precision: str, smollm2_package: Callable[[str], Path], held_out: list[str], tmp_path: Path
) -> None:
    """The bits of a real model, and that nothing of what was saved is read again; benchmarks/session.py has times."""
    model = edgellm.load(smollm2_package(precision))
    assert model.tokenizer is not None
    ids = model.tokenizer.encode(held_out[0])[:600].tolist()
    session = model.session()
    session.prefill(ids)
    session.save(tmp_path / "s")
    loaded = model.load_session(tmp_path / "s")
    assert loaded.reusable_tokens == len(ids) == 600
    found = next_logits(loaded, [*ids, 5, 6])
    np.testing.assert_array_equal(found, next_logits(session, [*ids, 5, 6]))
    assert relative_rms(found, model.logits([*ids, 5, 6])[-1]) < LOGITS[precision]
