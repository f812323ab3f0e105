"""State spaces, alone and beside attention, in every way in which rows are read and go back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
from comparison import hf_generate, reference_logits, relative, relative_rms
from edgellm.errors import ExportError, OptionError, UnsupportedModelError
from edgellm.ort.kernels import library
from edgellm.package.layouts import STATES_KEPT
from edgellm.package.manifest import Manifest
from edgellm.serving import Engine
from families import BY_NAME, make_model, save_checkpoint
from long_contexts import CONTEXT, FREE, LOGITS_TOLERANCE, LOGPROBS, Shared, long_model, long_packages, text

NAMES = ("mamba2", "granitemoehybrid-mamba")
ROUNDING = {"fp32": 1e-5, "int8": 5e-2}  # of states summed in another order, and what rounding activations makes of it


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def long_reference(name: str) -> Any:
    return long_model(name)


@pytest.fixture(scope="module")
def packages(name: str, long_reference: Any, shared: Shared) -> Callable[[str], Path]:
    return long_packages(name, long_reference, shared)


@pytest.fixture(scope="module")
def model(packages: Callable[[str], Path]) -> edgellm.Model:
    return edgellm.load(packages("fp32"), threads=1)


@pytest.mark.parametrize("chunk", [2, 5, 64, 128, 600])
def test_logits(chunk: int, long_reference: Any, packages: Callable[[str], Path]) -> None:
    """However the text is cut; what is read in one run has an end."""
    ids = np.array(text(CONTEXT - 10))
    found = edgellm.load(packages("fp32"), threads=1, prefill_chunk=chunk).logits(ids)
    assert relative(found, reference_logits(long_reference, ids)) < LOGITS_TOLERANCE


@pytest.mark.parametrize("chunk", [3, 255])
def test_states_that_some_tokens_wipe_out(chunk: int, tmp_path: Path) -> None:
    """Then what decays add up to is large, and what tokens behind such a one keep of each other is a small difference:
    float32 would have four digits of it left."""
    model = make_model(BY_NAME["mamba2"])
    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.mixer.A_log[:] = torch.linspace(0, 6, 6)
            layer.mixer.in_proj.weight[-6:] *= 10
    save_checkpoint(model, tmp_path / "source")
    path = edgellm_export.export(tmp_path / "source", tmp_path / "package", precision="fp32", verify_quality=False).path
    ids = np.array(text(250))
    found = edgellm.load(path, threads=1, prefill_chunk=chunk).logits(ids)
    assert relative(found, reference_logits(model.double(), ids)) < 1e-5


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 3}], ids=["greedy", "beams"])
def test_generation(options: dict[str, Any], long_reference: Any, model: edgellm.Model) -> None:
    """Rows of different lengths together, each as by itself."""
    prompts = [np.array(text(length, seed=length)) for length in (150, 1, 300)]
    expected = [
        hf_generate(long_reference, ids, max_new_tokens=30, do_sample=False, **options).tokens for ids in prompts
    ]
    found = model.generate(prompts, max_new_tokens=30, do_sample=False, **options)
    assert [[one.tokens for one in each.sequences] for each in found] == expected


def test_no_drafts(model: edgellm.Model) -> None:
    with pytest.raises(OptionError, match="whose states cannot forget a draft that is rejected"):
        model.generate(text(40) * 3, prompt_lookup=True)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_sessions_go_back(precision: str, packages: Callable[[str], Path], tmp_path: Path) -> None:
    """To where the last prompts ended, and read the rest again."""
    loaded = edgellm.load(packages(precision), threads=1)
    ids = text(500)
    session = loaded.session()
    session.prefill(ids[:100])
    session.prefill(ids[:230])
    session.generate(ids[:330], max_new_tokens=70, **FREE)
    assert len(session.tokens) == 399
    for length, kept in ((399, 399), (395, 330), (329, 230), (229, 0)):
        session.save(tmp_path / f"{length}")
        again, fork = loaded.load_session(tmp_path / f"{length}"), session.fork()
        held = session.tokens
        assert again.tokens == fork.tokens == held
        ends = (session, (330, 230)), (again, ()), (fork, (330,))  # beside the end of all
        for each, known in ends:
            left = max((end for end in (399, *known) if end <= length), default=0)
            assert left == kept or each is not session
            each.trim(length)
            assert len(each.tokens) == left
        for each in (session, again, fork):
            longer = [*held[:length], *ids[:20], 7]
            expected = loaded.logits(np.array(longer))[-1]
            found = each._holder.engine.prefill([np.array(longer)])[0]
            assert relative_rms(found, expected) < ROUNDING[precision]
        session.reset()
        session.prefill(ids[:100])
        session.prefill(ids[:230])
        session.generate(ids[:330], max_new_tokens=70, **FREE)
    assert STATES_KEPT == 2  # those of 230 and 330


def test_an_empty_session_is_saved(model: edgellm.Model, tmp_path: Path) -> None:
    model.session().save(tmp_path / "empty")
    again = model.load_session(tmp_path / "empty")
    assert again.tokens == ()
    expected = model.generate([5, 6, 7], max_new_tokens=5, **FREE)
    assert again.generate([5, 6, 7], max_new_tokens=5, **FREE).tokens == expected.tokens


def test_a_session_keeps_the_prompt_of_several_sequences(model: edgellm.Model) -> None:
    session, ids = model.session(), text(300)
    session.generate(ids, num_beams=3, max_new_tokens=50, **FREE)
    assert session.tokens == tuple(ids)
    longer = [*ids, 5, 6, 7]
    assert session.reusable_tokens == 300
    expected = model.logits(np.array(longer))[-1]
    assert relative_rms(session._holder.engine.prefill([np.array(longer)])[0], expected) < 1e-5


def test_a_document_with_questions(model: edgellm.Model) -> None:
    """Is read once, whatever is asked about it."""
    session, document = model.session(), text(200)
    session.prefill(document)
    for seed in range(3):
        session.generate([*document, *text(20, seed)], max_new_tokens=10, **FREE)
        session.trim(205)
        assert session.tokens == tuple(document)


def test_served_together(packages: Callable[[str], Path]) -> None:
    """Each request gets what it gets alone, also where rows come and go."""
    loaded = edgellm.load(packages("fp32"), threads=1)
    asked = [text(length, seed=length) for length in (210, 3, 100, 60, 1)]
    with Engine(loaded, max_rows=3) as engine:
        answers = [engine.submit(ids, max_new_tokens=10 + 7 * i, **FREE) for i, ids in enumerate(asked)]
        found = [answer.result() for answer in answers]
        again = engine.submit(asked[0], max_new_tokens=10, **FREE).result()
        assert engine.stats.reused_tokens == 0  # beginnings are not shared
    assert again.tokens == found[0].tokens
    for i, (ids, generation) in enumerate(zip(asked, found, strict=True)):
        loaded.reset()
        expected = loaded.generate(ids, max_new_tokens=10 + 7 * i, **FREE)
        assert generation.tokens == expected.tokens
        np.testing.assert_allclose(generation.logprobs, expected.logprobs, atol=LOGPROBS)


def test_memory_is_that_of_attention_and_of_states(model: edgellm.Model) -> None:
    session = model.session()
    session.prefill(text(600))
    cache = model.manifest.model.cache
    assert cache.states is not None
    state = cache.states.bytes_per_row
    assert session.nbytes == session._holder.engine._cache.capacity * cache.bytes_per_token() + 2 * state
    assert cache.row_bytes(600) == 600 * cache.bytes_per_token() + (1 + STATES_KEPT) * state
    with pytest.raises(OptionError, match="what two tokens take"):
        model.session(max_bytes=(1 + STATES_KEPT) * state - 1)
    small = model.session(max_bytes=cache.row_bytes(300))
    assert small.max_tokens == (300 if cache.num_attention_layers else model.manifest.context_length)


@pytest.mark.parametrize("kv_cache", ["int8", "bfloat16"])
def test_keys_of_other_types_beside_states(
    kv_cache: str, name: str, long_reference: Any, packages: Callable[[str], Path], model: edgellm.Model, tmp_path: Path
) -> None:
    """What they cost is what they cost other families, and states stay float32."""
    ids = np.array(text(300))
    if kv_cache == "bfloat16" and (library() is None or name == "mamba2"):
        pytest.skip("needs kernels, and keys")
    if name == "mamba2":
        pytest.skip("has no keys: see test_what_cannot_be")
    path = packages("fp32")
    if kv_cache == "int8":
        save_checkpoint(long_reference, tmp_path / "source")
        options: dict[str, Any] = {"precision": "fp32", "kv_cache": "int8", "verify_quality": False}
        path = edgellm_export.export(tmp_path / "source", tmp_path / "package", **options).path
    found = edgellm.load(path, threads=1, kv_cache="auto" if kv_cache == "int8" else kv_cache)  # type: ignore[arg-type]
    moved = relative_rms(found.logits(ids), model.logits(ids))
    assert 1e-5 < moved < 0.1
    tokens = found.generate(ids[:100], max_new_tokens=20, **FREE).tokens
    whole = found.logits(np.array([*ids[:100], *tokens]))
    assert [int(row.argmax()) for row in whole[99:-1]] == list(tokens)


def test_the_manifest_says_which_layers_have_states(packages: Callable[[str], Path]) -> None:
    path = packages("fp32")
    manifest = edgellm.load(path, threads=1).manifest
    states = manifest.model.cache.states
    assert states is not None
    assert states.layers == ((0, 1, 2) if manifest.model_type == "mamba2" else (0, 2))
    assert not (path / "genai_config.json").exists()
    assert Manifest.from_dict(manifest.to_dict()) == manifest


def test_no_embeddings(long_reference: Any, tmp_path: Path) -> None:
    save_checkpoint(long_reference, tmp_path / "source")
    with pytest.raises(UnsupportedModelError, match="no embeddings"):
        edgellm_export.export(tmp_path / "source", tmp_path / "out", task="feature-extraction")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target": "cuda"}, "for the CPU only"), ({"attentions": True}, "no layer"), ({"kv_cache": "int8"}, "no layer")],
)
def test_what_cannot_be(options: dict[str, Any], message: str, long_reference: Any, tmp_path: Path) -> None:
    save_checkpoint(long_reference, tmp_path / "source")
    if message == "no layer" and long_reference.config.model_type != "mamba2":
        edgellm_export.export(tmp_path / "source", tmp_path / "out", precision="int8", verify_quality=False, **options)
        return
    with pytest.raises(ExportError, match=message):
        edgellm_export.export(tmp_path / "source", tmp_path / "out", verify_quality=False, **options)
