"""Texts longer than what the cache has of short convolutions: LFM2 in every way in which rows are read and go back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from comparison import hf_generate, reference_logits, relative, relative_rms
from edgellm.errors import OptionError
from edgellm.ort.kernels import library
from edgellm.package.layouts import CONV_SLOTS, CONV_STEP
from edgellm.package.manifest import Manifest
from edgellm.serving import Engine
from long_contexts import CONTEXT, FREE, LOGITS_TOLERANCE, LOGPROBS, Shared, long_model, long_packages, text

needs_kernels = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")


@pytest.fixture(scope="module")
def long_reference() -> Any:
    return long_model("lfm2")


@pytest.fixture(scope="module")
def packages(long_reference: Any, shared: Shared) -> Callable[[str], Path]:
    return long_packages("lfm2", long_reference, shared)


@pytest.fixture(scope="module")
def model(packages: Callable[[str], Path]) -> edgellm.Model:
    return edgellm.load(packages("fp32"), threads=1)


def same(found: edgellm.Generation, expected: edgellm.Generation) -> None:
    assert [one.tokens for one in found.sequences] == [one.tokens for one in expected.sequences]
    for one, other in zip(found.sequences, expected.sequences, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=LOGPROBS)


@pytest.mark.parametrize("chunk", [5, 64, 128, 300])
def test_logits(chunk: int, long_reference: Any, packages: Callable[[str], Path], model: edgellm.Model) -> None:
    """The slots go round three times; chunks larger than usual have more of them."""
    ids = np.array(text(CONTEXT - 10))
    found = edgellm.load(packages("fp32"), threads=1, prefill_chunk=chunk).logits(ids)
    assert relative(found, reference_logits(long_reference, ids)) < LOGITS_TOLERANCE
    if library() is not None:
        np.testing.assert_array_equal(found, model.logits(ids))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 3}], ids=["greedy", "beams"])
def test_generation(options: dict[str, Any], long_reference: Any, model: edgellm.Model) -> None:
    """From within the slots to beyond them, and from beyond; each by itself and together."""
    prompts = [np.array(text(length, seed=length)) for length in (150, 1, 400)]
    expected = [
        hf_generate(long_reference, ids, max_new_tokens=60, do_sample=False, **options).tokens for ids in prompts
    ]
    found = model.generate(prompts, max_new_tokens=60, do_sample=False, **options)
    assert [[one.tokens for one in each.sequences] for each in found] == expected


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_prompt_lookup(precision: str, packages: Callable[[str], Path]) -> None:
    """Drafts that are taken back leave convolutions as they were."""
    loaded = edgellm.load(packages(precision), threads=1)
    ids = text(40) * 6
    expected = loaded.generate(ids, max_new_tokens=80, **FREE)
    loaded.reset()
    found = loaded.generate(ids, max_new_tokens=80, prompt_lookup=True, **FREE)
    if library() is not None:
        assert found.tokens == expected.tokens
    assert len(found.tokens) == 80


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_sessions_go_back(precision: str, packages: Callable[[str], Path], tmp_path: Path) -> None:
    """As far as is remembered, and read the rest again."""
    loaded = edgellm.load(packages(precision), threads=1)
    ids = text(500)
    session = loaded.session()
    session.generate(ids[:330], max_new_tokens=70, **FREE)
    assert len(session.tokens) == 399
    for length, kept in ((395, 395), (230, 230), (180, 128), (100, 64), (40, 0)):
        session.save(tmp_path / f"{length}")
        again, fork = loaded.load_session(tmp_path / f"{length}"), session.fork()
        assert again.tokens == fork.tokens == session.tokens
        again.trim(length)
        assert again.tokens == ()  # what was remembered is not saved
        fork.trim(length)
        assert len(fork.tokens) == kept // CONV_STEP * CONV_STEP  # it has less in its slots
        session.trim(length)
        assert len(session.tokens) == kept
        longer = [*session.tokens, *ids[kept : kept + 20], 7]
        expected = loaded.logits(np.array(longer))[-1]
        for each in (session, again, fork):
            found = each._holder.engine.prefill([np.array(longer)])[0]
            assert relative_rms(found, expected) < (1e-5 if precision == "fp32" else 5e-3)
        session.prefill(ids[:330])
        session.generate(ids[:330], max_new_tokens=70, **FREE)
    assert session.tokens[:330] == tuple(ids[:330])


def test_a_session_keeps_the_prompt_of_several_sequences(model: edgellm.Model) -> None:
    session, ids = model.session(), text(300)
    session.generate(ids, num_beams=3, max_new_tokens=250, **FREE)
    assert session.tokens == tuple(ids)
    longer = [*ids, 5, 6, 7]
    assert session.reusable_tokens == 300
    expected = model.logits(np.array(longer))[-1]
    assert relative_rms(session._holder.engine.prefill([np.array(longer)])[0], expected) < 1e-5


@needs_kernels
def test_served_together(packages: Callable[[str], Path]) -> None:
    """Each request gets what it gets alone; what prompts begin with is read once, also when it is long past."""
    loaded = edgellm.load(packages("int8"), threads=1)
    beginning = text(450)
    asked = [beginning + text(10 + i, seed=i) for i in range(4)] + [text(3), beginning[:200] + text(30, seed=9)]
    with Engine(loaded) as engine:
        first = engine.submit(asked[0], max_new_tokens=40, **FREE).result()
        answers = [engine.submit(ids, max_new_tokens=40, **FREE) for ids in asked]
        found = [answer.result() for answer in answers]
        reused = engine.stats.reused_tokens
    for ids, generation in zip([asked[0], *asked], [first, *found], strict=True):
        loaded.reset()
        same(generation, loaded.generate(ids, max_new_tokens=40, **FREE))
    assert reused >= 4 * 448 + 192


def test_memory_is_that_of_attention_and_of_the_slots(model: edgellm.Model) -> None:
    session = model.session()
    session.prefill(text(600))
    cache = model.manifest.model.cache
    assert cache.conv is not None
    slot, remembered = cache.conv.bytes_per_slot, 2 * cache.conv.bytes_per_slot
    keys = 2 * 2 * 2 * 16 * 4  # layers, sides, heads, channels, bytes
    assert cache.bytes_per_token() == keys + remembered // CONV_STEP == model.info.cache_bytes_per_token
    assert cache.row_bytes(600) == 600 * cache.bytes_per_token() + CONV_SLOTS * slot
    most = session._holder.engine._cache.capacity
    assert session.nbytes == most * keys + CONV_SLOTS * slot + 10 * remembered  # 9 steps, and the prompt's end
    with pytest.raises(OptionError, match="what two tokens take"):
        model.session(max_bytes=CONV_SLOTS * slot)
    small = model.session(max_bytes=cache.row_bytes(300))
    assert small.max_tokens == 300


def test_the_manifest_says_which_layers_have_convolutions(packages: Callable[[str], Path]) -> None:
    path = packages("fp32")
    manifest = edgellm.load(path, threads=1).manifest
    assert manifest.model.cache.conv is not None
    assert manifest.model.cache.conv.layers == (0, 2)
    assert not (path / "genai_config.json").exists()
    assert Manifest.from_dict(manifest.to_dict()) == manifest
