"""Decoder packages of ours in onnxruntime-genai: the same greedy tokens, from the same text, as on the kernels of ONNX
Runtime that both then use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
import edgellm_export
import optimum_models
from comparison import prompt
from families import FAMILIES
from interchange.peer import Peer

NEW_TOKENS = 20
CHUNK = 16  # prompt tokens that ours reads at once; onnxruntime-genai reads the whole prompt


def ours(package: Path, ids: list[int], **options: object) -> list[int]:
    """New tokens, without the one that ends them, which onnxruntime-genai does not tell."""
    model = edgellm.load(package, threads=1, prefill_chunk=CHUNK, kernels="off")
    assert isinstance(model, edgellm.Model)
    result = model.generate(ids, **{"max_new_tokens": NEW_TOKENS, **options})
    return [token for token in result.tokens if token not in model.manifest.tokens.eos]


CASES = [
    (family.name, precision)
    for family in FAMILIES
    if not family.convolves and not family.remembers
    for precision in ("fp32", "int8", "int4")
]


@pytest.mark.parametrize(("family", "precision"), [*CASES, ("llama", "fp16"), ("gemma2", "fp16")])
def test_greedy_tokens(genai: Peer, package: Callable[..., Path], family: str, precision: str) -> None:
    path = package(family, precision)
    for length in prompt_lengths(family):
        ids = prompt(family, length, seed=1).tolist()
        assert genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=NEW_TOKENS) == ours(path, ids)


def prompt_lengths(family: str) -> tuple[int, ...]:
    """Below and above our chunk. LongRoPE: onnxruntime-genai does not compute the cache anew where the tables change,
    so not across that."""
    return (2, 60) if family.endswith("-longrope") else (9, 60)


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3-partial", "gemma3"])
def test_int8_cache(genai: Peer, checkpoint: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    out = tmp_path / "package"
    edgellm_export.export(
        checkpoint(family), out, precision="fp32", kv_cache="int8", verify_quality=False, calibrate=False
    )
    ids = prompt(family, 40, seed=2).tolist()
    assert genai.ask("generate", package=str(out), prompt=ids, max_new_tokens=NEW_TOKENS) == ours(out, ids)


GENERATION: list[dict[str, Any]] = [
    {"repetition_penalty": 1.7},
    {"min_length": 40, "eos_token_id": [13, 96]},
    {"eos_token_id": [104]},
]


@pytest.mark.parametrize("settings", GENERATION, ids=lambda settings: "+".join(settings))
def test_what_the_checkpoint_says_of_generating(
    genai: Peer, checkpoint: Callable[[str], Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """generation_config.json is heard by both, without a word from the caller."""
    ids = prompt("llama", 9, seed=5).tolist()
    plain, path = (export_with(checkpoint("llama"), tmp_path, name, s) for name, s in (("a", {}), ("b", settings)))
    expected = ours(path, ids, max_new_tokens=60)
    assert expected != ours(plain, ids, max_new_tokens=60), "the settings change nothing here"
    assert genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=60) == expected


def export_with(checkpoint: Path, directory: Path, name: str, settings: dict[str, Any]) -> Path:
    copy = directory / f"{name}-checkpoint"
    shutil.copytree(checkpoint, copy)
    file = copy / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return edgellm_export.export(copy, directory / name, precision="fp32", verify_quality=False, calibrate=False).path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("family", optimum_models.DECODERS)
def test_graphs_of_optimum(genai: Peer, tmp_path: Path, family: str, precision: Any) -> None:
    """What `--via optimum` makes, with a cache that concatenates."""
    checkpoint = optimum_models.save_checkpoint(optimum_models.make_model(family), tmp_path / "checkpoint")
    path = tmp_path / "package"
    edgellm_export.export(checkpoint, path, precision=precision, via="optimum", verify_quality=False)
    ids = np.random.default_rng(1).integers(3, optimum_models.VOCAB, 30).tolist()
    assert genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=NEW_TOKENS) == ours(path, ids)


def test_a_model_without_an_end(genai: Peer, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Nothing is made up: no token ends it, and every token may come."""
    path = export_with(checkpoint("llama"), tmp_path, "endless", {"eos_token_id": None})
    ids = prompt("llama", 5, seed=4).tolist()
    tokens = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=80)
    assert len(tokens) == 80
    assert tokens == ours(path, ids, max_new_tokens=80)


def test_beams_and_chunks(genai: Peer, package: Callable[..., Path]) -> None:
    """What else onnxruntime-genai does with a cache: it copies it for beams, and reads prompts in pieces."""
    path, ids = package("qwen2", "fp32"), prompt("qwen2", 30, seed=5).tolist()
    beams = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=10, num_beams=3)
    pieces = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=10, chunk_size=7)
    assert pieces == ours(path, ids, max_new_tokens=10)
    assert beams == ours(path, ids, max_new_tokens=10, num_beams=3)
