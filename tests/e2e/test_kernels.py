"""Packages on edgellm's own kernels: the numbers that ONNX Runtime's give, in every family."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import edgellm
from comparison import prompt
from edgellm.ort import kernels
from edgellm.ort.kernels import library, with_kernels
from families import BY_NAME, FAMILIES

pytestmark = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_logits_and_tokens(name: str, precision: str, package: Callable[..., Path]) -> None:
    path, ids = package(name, precision), prompt(name, 24)
    ours, theirs = (edgellm.load(path, threads=2, kernels=choice) for choice in ("auto", "off"))
    # Both sum the same whole numbers block by block in float32, in other orders: 5e-7, or where an activation rounds
    # to the next of its 127 steps for that, up to 0.022. A wrong zero point or a missing bias costs 0.3 and more.
    # Where that decides between two experts, a token of a mixture moves further.
    found, expected = ours.logits(ids), theirs.logits(ids)
    moved = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert (np.median(moved) if BY_NAME[name].chooses else moved.max()) < 0.05
    assert (ours.info.kernels is None, theirs.info.kernels) == (False, None)
    assert np.isfinite(ours.logits(ids)).all()


@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.chooses])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_mixture_is_one_step(
    name: str, precision: str, package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the bits that steps for each of its experts give."""
    path, ids = package(name, precision), prompt(name, 24)
    graph, found = path / "model.onnx", edgellm.load(path, threads=2).logits(ids)
    together = with_kernels(graph)
    monkeypatch.setattr(kernels, "with_experts", lambda model: model)
    apart = with_kernels(graph)
    assert together is not None
    assert apart is not None
    mixtures = {*re.findall(rb"layers\.\d+/\w+/experts/Split", apart)}
    assert together.count(b"\x22\x07Experts") == len(mixtures) > 0  # names of operators
    assert b"/experts/Split" not in together
    expected = edgellm.load(path, threads=2).logits(ids)
    if name == "gpt_oss":  # whose activations are ONNX Runtime's there, to the rounding of float32
        moved = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
        assert np.median(moved) < 0.05
    else:
        assert same_bits(found, expected)


def test_the_real_model(smollm2_package: Callable[[str], Path]) -> None:
    path, question = smollm2_package("int4"), "The capital of France is"
    models = [edgellm.load(path, threads=2, kernels=choice) for choice in ("auto", "off")]
    ours, theirs = (model.generate(question, max_new_tokens=8, do_sample=False).text for model in models)
    assert ours == theirs


def same_bits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def test_logits_are_the_same_however_a_text_is_read(smollm2_package: Callable[[str], Path]) -> None:
    path = smollm2_package("int4")
    ids = np.random.default_rng(0).integers(0, 40_000, 300)
    whole = edgellm.load(path, threads=2, prefill_chunk=300).logits(ids)
    for threads, chunk in ((1, 300), (1, 128), (2, 37), (2, 1)):
        found = edgellm.load(path, threads=threads, prefill_chunk=chunk).logits(ids)
        assert same_bits(found, whole), (threads, chunk)


def test_logits_are_the_same_in_a_batch(smollm2_package: Callable[[str], Path]) -> None:
    model = edgellm.load(smollm2_package("int4"), threads=2)
    rng, lengths = np.random.default_rng(1), (3, 70, 129)
    texts = [rng.integers(0, 40_000, length + 4) for length in lengths]
    alone = [model.logits(ids)[-5:] for ids in texts]
    engine = model.new_engine()
    found = [engine.prefill([ids[:-4] for ids in texts]).copy()]
    found += [engine.decode(np.array([ids[i] for ids in texts])).copy() for i in range(-4, 0)]
    for row, expected in enumerate(alone):
        assert same_bits(np.stack([logits[row] for logits in found]), expected)
