"""Sentence encoders: a vector for a text."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import edgellm
import edgellm_export
from comparison import relative
from edgellm.errors import CheckpointError, ContextOverflowError, EdgellmError, UnsupportedModelError
from encoder_checks import TOLERANCE, expected


def sentence_files(path: Path, *, pooling: dict[str, Any], normalize: bool, **sentence: Any) -> None:
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    entries = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(entries))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **pooling}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, **sentence}))


POOLED = {
    "pooling_mode_mean_tokens": lambda states: states.mean(axis=0),
    "pooling_mode_cls_token": lambda states: states[0],
    "pooling_mode_max_tokens": lambda states: states.max(axis=0),
}


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings(
    mode: str, normalize: bool, reference: Callable[..., Any], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Texts of several lengths in one batch, so that padding would show."""
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={name: name == mode for name in POOLED}, normalize=normalize)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32")
    model = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1))
    texts = ["short", "a longer text here", "one in between", "x"]
    found = model.embed(texts)
    for text, vector in zip(texts, found, strict=True):
        states = expected(reference("bert", "feature-extraction"), model.tokenizer.encoding(text))["last_hidden_state"]
        wanted = POOLED[mode](states)
        wanted = wanted / np.linalg.norm(wanted) if normalize else wanted
        assert relative(vector, wanted) < TOLERANCE
    assert np.allclose(np.linalg.norm(model.embed(texts, normalize=True), axis=1), 1)
    with pytest.raises(ContextOverflowError, match=r"input 0 has \d+ tokens, this model takes at most 20"):
        model.embed(["a text that is longer than twenty letters"])
    assert model.embed(["a text that is longer than twenty letters"], truncation="longest_first").shape == (1, 48)


SENTENCE_ERRORS: dict[str, tuple[Callable[[Path], None], type[EdgellmError], str]] = {
    "another pooling": (
        lambda p: sentence_files(p, pooling={"pooling_mode_mean_sqrt_len_tokens": True}, normalize=False),
        UnsupportedModelError, "does not build pooling_mode_mean_sqrt_len_tokens",
    ),
    "two poolings": (
        lambda p: sentence_files(p, pooling=dict.fromkeys(POOLED, True), normalize=False),
        UnsupportedModelError, "3 pooling modes",
    ),
    "a newer spelling": (
        lambda p: sentence_files(p, pooling={"pooling_mode": "lasttoken"}, normalize=False),
        UnsupportedModelError, "does not build lasttoken",
    ),
    "another size": (
        lambda p: sentence_files(p, pooling={"word_embedding_dimension": 7}, normalize=False),
        CheckpointError, "the dimension is 7",
    ),
    "lower case": (
        lambda p: sentence_files(p, pooling={"pooling_mode": "mean"}, normalize=False, do_lower_case=True),
        UnsupportedModelError, "do_lower_case is true",
    ),
    "a length that is none": (
        lambda p: sentence_files(p, pooling={"pooling_mode": "mean"}, normalize=False, max_seq_length="long"),
        CheckpointError, "max_seq_length is 'long'",
    ),
    "a dense layer": (
        lambda p: (p / "modules.json").write_text(json.dumps(
            [{"path": str(i), "type": f"m.{kind}"} for i, kind in enumerate(["Transformer", "Pooling", "Dense"])]
        )) and None,
        UnsupportedModelError, "has a step Dense",
    ),
    "no pooling config": (
        lambda p: (p / "modules.json").write_text(json.dumps(
            [{"path": "", "type": "m.Transformer"}, {"path": "1_Pooling", "type": "m.Pooling"}]
        )) and None,
        CheckpointError, "lacks 1_Pooling/config.json",
    ),
    "modules that are none": (
        lambda p: (p / "modules.json").write_text("[7]") and None, CheckpointError, "modules.json is not a list",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCE_ERRORS)
def test_sentence_encoders_that_are_not_built(name: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    damage, error, words = SENTENCE_ERRORS[name]
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    damage(source)
    with pytest.raises(error, match=re.escape(words)) as caught:
        edgellm_export.export(source, tmp_path / "package")
    assert type(caught.value) is error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
