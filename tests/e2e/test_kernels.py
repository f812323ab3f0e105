"""Packages on edgellm's own kernels: the numbers that ONNX Runtime's give, in every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgellm
from comparison import prompt, relative
from edgellm.ort.kernels import library
from families import FAMILIES

pytestmark = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_logits_and_tokens(name: str, precision: str, package: Callable[..., Path]) -> None:
    path, ids = package(name, precision), prompt(name, 24)
    ours, theirs = (edgellm.load(path, threads=2, kernels=kernels) for kernels in ("auto", "off"))
    # Both sum the same whole numbers block by block in float32, in other orders: 5e-7, or where an activation rounds
    # to the next of its 127 steps for that, up to 0.022. A wrong zero point or a missing bias costs 0.3 and more.
    assert relative(ours.logits(ids), theirs.logits(ids)) < 0.05
    assert (ours.info.kernels is None, theirs.info.kernels) == (False, None)
    assert np.isfinite(ours.logits(ids)).all()


def test_the_real_model(smollm2_package: Callable[[str], Path]) -> None:
    path, question = smollm2_package("int4"), "The capital of France is"
    models = [edgellm.load(path, threads=2, kernels=kernels) for kernels in ("auto", "off")]
    ours, theirs = (model.generate(question, max_new_tokens=8, do_sample=False).text for model in models)
    assert ours == theirs
