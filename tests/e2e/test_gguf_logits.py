"""Packages of GGUF files give the logits of the transformers models that the files were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgellm
import edgellm_export
from comparison import reference_logits, relative
from gguf_models import FAMILIES, VOCAB, build, converted

# Of float32 sums in another order, and of norms whose numbers went through + 1.
TOLERANCE = 2e-4
SCALE = 0.1  # of matrices: attention looks at several tokens, and activations bend


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    model = build(family, SCALE)
    path = converted(tmp_path / "w.gguf", family, model)
    edgellm_export.export(str(path), tmp_path / "package", precision="fp32", verify_quality=False)
    ids = np.random.default_rng(1).integers(0, VOCAB, 70)
    got = edgellm.load(tmp_path / "package").logits(ids.tolist())
    assert relative(got, reference_logits(model, ids)) < TOLERANCE
