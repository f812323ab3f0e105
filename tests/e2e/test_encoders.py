"""Encoder-only packages against transformers on the same weights, and against themselves in other batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
from comparison import relative
from edgellm.encodings import Encoding
from encoder_families import BY_NAME, CASES, make_model, save_checkpoint

TOLERANCE = 2e-5  # largest difference over largest magnitude
LENGTHS = [17, 5, 30, 16, 1, 30]  # tokens


@pytest.fixture(scope="module")
def reference() -> Callable[..., Any]:
    return cache(make_model)


@pytest.fixture(scope="module")
def checkpoint(reference: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    out = tmp_path_factory.mktemp("checkpoint")
    return cache(lambda *case: save_checkpoint(reference(*case), out / "-".join(case)))


@pytest.fixture(scope="module")
def load(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    out = tmp_path_factory.mktemp("package")

    @cache
    def make(name: str, task: str, precision: str) -> edgellm.EncoderModel:
        path = out / f"{name}-{task}-{precision}"
        edgellm_export.export(
            checkpoint(name, task), path, precision=precision, verify_quality=False,  # type: ignore[arg-type]
        )  # fmt: skip
        return edgellm.load(path, threads=1)  # type: ignore[return-value]

    return make


def inputs(name: str, seed: int = 0) -> list[Encoding]:
    """Random tokens in two segments, none of them special."""
    rng = np.random.default_rng(seed)
    types = BY_NAME[name].settings.get("type_vocab_size", 1)
    found = []
    for length in LENGTHS:
        ids = rng.integers(5, 131, length)
        segments = np.minimum((np.arange(length) > length // 2).astype(np.int64), types - 1)
        found.append(
            Encoding(ids, segments, np.zeros(length, np.bool_), np.zeros((length, 2), np.int64), segments, segments)
        )
    return found


@torch.no_grad()
def expected(model: Any, one: Encoding) -> dict[str, np.ndarray]:
    feeds = {"input_ids": torch.tensor(one.ids[None])}
    if "DistilBert" not in type(model).__name__:
        feeds["token_type_ids"] = torch.tensor(one.type_ids[None])
    out = model(**feeds)
    names = ("logits", "start_logits", "end_logits", "last_hidden_state")
    return {name: out[name][0].numpy() for name in names if name in out}


@pytest.mark.parametrize(("name", "task"), CASES)
def test_outputs(name: str, task: str, reference: Callable[..., Any], load: Callable[..., Any]) -> None:
    """A batch of several lengths, so with padding, beside one input at a time in transformers."""
    model = load(name, task, "fp32")
    assert model.manifest.task == task
    for one, result in zip(inputs(name), model.run(inputs(name)), strict=True):
        wanted = expected(reference(name, task), one)
        assert result.outputs.keys() == wanted.keys()
        for key, array in wanted.items():
            assert result.outputs[key].shape == array.shape
            assert relative(result.outputs[key], array) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize(("name", "task"), [("bert", "feature-extraction"), ("roberta", "text-classification")])
def test_results_do_not_depend_on_the_batch(name: str, task: str, precision: str, load: Callable[..., Any]) -> None:
    model = load(name, task, precision)
    together = model.run(inputs(name) + inputs(name, seed=1))
    for one, result in zip(inputs(name), together, strict=False):
        (alone,) = model.run([one])
        for key in alone.outputs:
            assert relative(result.outputs[key], alone.outputs[key]) < TOLERANCE
