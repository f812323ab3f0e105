"""all-MiniLM-L6-v2, a sentence encoder: float32 beside transformers, int8 and int4 beside float32, on 200 sentences."""

from __future__ import annotations

import pydoc_data.topics
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import transformers as hf

import edgellm
from edgellm.package.report import Report, read_report

pytestmark = pytest.mark.real_model

COUNT = 200


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """English that every Python carries, from all of its topics."""
    text = " ".join(" ".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)).split())
    found = [s for s in re.split(r"(?<=[.!?])\s+", text) if 40 < len(s) < 300]
    return found[:: len(found) // COUNT][:COUNT]


@pytest.fixture(scope="module")
def embedded(minilm_package: Callable[[str], Path], sentences: list[str]) -> Callable[[str], np.ndarray]:
    """[200, 384], unit vectors, by precision. The export's own comparison has passed."""

    @cache
    def embed(precision: str) -> np.ndarray:
        path = minilm_package(precision)
        assert report_of(path).passed
        return cast(edgellm.EncoderModel, edgellm.load(path)).embed(sentences)

    return embed


def report_of(package: Path) -> Report:
    report = read_report(package)
    assert report is not None
    return report


@torch.no_grad()
def test_vectors_of_transformers(minilm: Path, sentences: list[str], embedded: Callable[[str], np.ndarray]) -> None:
    """Mean of the tokens' states, then a unit vector: what the checkpoint's modules.json says."""
    model, tokenizer = hf.AutoModel.from_pretrained(minilm).eval(), hf.AutoTokenizer.from_pretrained(minilm)
    for sentence, vector in zip(sentences[:40], embedded("fp32"), strict=False):
        states = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].numpy()
        mean = states.mean(axis=0)
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < 1e-5


# Cosine to float32, at worst and on average. Measured: int8 0.9994 and 0.9997, int4 0.982 and 0.991.
@pytest.mark.parametrize(("precision", "worst", "mean"), [("int8", 0.999, 0.9996), ("int4", 0.96, 0.985)])
def test_cosine_to_float32(precision: str, worst: float, mean: float, embedded: Callable[[str], np.ndarray]) -> None:
    cosines = (embedded(precision) * embedded("fp32")).sum(axis=1)
    assert len(cosines) == COUNT
    assert cosines.min() >= worst
    assert cosines.mean() >= mean


def test_int8_ranks_as_float32_does(embedded: Callable[[str], np.ndarray]) -> None:
    """For each sentence, the others by similarity: only near ties change places. Measured: similarities are off by
    0.002, at most 0.013; the nearest sentence is another for 4%, and was then less than 0.005 behind."""
    wanted, found = (similarities(embedded(precision)) for precision in ("fp32", "int8"))
    assert np.abs(wanted - found).max() < 0.02  # so no two that are 0.04 apart change places
    rows = np.arange(COUNT)
    nearest, ours = wanted.argmax(axis=1), found.argmax(axis=1)
    assert (nearest == ours).mean() >= 0.93
    assert (wanted[rows, nearest] - wanted[rows, ours]).max() < 0.01
    ranks = [np.argsort(np.argsort(matrix, axis=1), axis=1) for matrix in (wanted, found)]
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)]
    assert min(correlation) > 0.99


def similarities(vectors: np.ndarray) -> np.ndarray:
    """[n, n]; that of a sentence with itself is -1."""
    matrix = vectors @ vectors.T
    np.fill_diagonal(matrix, -1)
    return matrix
