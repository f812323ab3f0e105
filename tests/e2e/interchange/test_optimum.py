"""Packages of ours in optimum: ORTModelForCausalLM, ORTModelForSeq2SeqLM and the classes for encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
import edgellm_export
import encoder_decoder_families
import encoder_families
from comparison import prompt, relative, trimmed
from families import FAMILIES
from interchange.peer import Peer

NEW_TOKENS = 20
CHUNK = 16  # prompt tokens that ours reads at once; optimum reads the whole prompt
# optimum knows of these that their caches have fewer heads than queries, and how large a head is.
# Which it gives caches of DeepSeek-V3's own sizes, whatever the graph's are.
NOT_FOR_OPTIMUM = ("deepseek_v3", "deepseek_v3-groups")
OF_OPTIMUM = [
    each.name for each in FAMILIES if not each.convolves | each.remembers and each.name not in NOT_FOR_OPTIMUM
]
KNOWN_TO_OPTIMUM = ["gpt2", "gpt2-untied", "gemma3", "gemma3-linear"]
BINDING = pytest.mark.parametrize("use_io_binding", [False, True], ids=["plain", "io-binding"])


def ours(package: Path, prompts: list[list[int]], **options: Any) -> list[tuple[int, ...]]:
    model = edgellm.load(package, threads=1, prefill_chunk=CHUNK, kernels="off")
    assert isinstance(model, edgellm.Model)
    return [result.tokens for result in model.generate(prompts, **options)]


def ends(rows: list[list[int]], end: int) -> list[tuple[int, ...]]:
    """Without the padding that follows the end."""
    return [trimmed(row, end) for row in rows]


@pytest.mark.parametrize(("precision", "use_io_binding"), [("fp32", False), ("int8", True), ("int4", False)])
@pytest.mark.parametrize("family", OF_OPTIMUM)
def test_decoders(
    optimum: Peer, package: Callable[..., Path], family: str, precision: str, use_io_binding: bool
) -> None:
    path = package(family, precision)
    model = edgellm.load(path, threads=1, kernels="off")
    cache = model.manifest.model.cache
    heads = None if family in KNOWN_TO_OPTIMUM else [cache.num_kv_heads, cache.head_dim]
    options = {"max_new_tokens": NEW_TOKENS}
    for length in (2, 60) if family.endswith("-longrope") else (9, 60):
        prompts = [prompt(family, length, seed=1).tolist()]
        found = optimum.ask(
            "generate", package=str(path), prompts=prompts, options=options, heads=heads, use_io_binding=use_io_binding
        )
        assert ends(found, model.manifest.tokens.eos[0]) == ours(path, prompts, **options)


@BINDING
@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"precision": "fp32", "kv_cache": "int8"}], ids=str)
def test_half_weights_and_int8_caches(
    optimum: Peer, checkpoint: Callable[[str], Path], tmp_path: Path, options: dict[str, Any], use_io_binding: bool
) -> None:
    path = tmp_path / "package"
    edgellm_export.export(checkpoint("gpt2"), path, verify_quality=False, calibrate=False, **options)
    prompts, length = [prompt("gpt2", 40, seed=6).tolist()], {"max_new_tokens": NEW_TOKENS}
    found = optimum.ask("generate", package=str(path), prompts=prompts, options=length, use_io_binding=use_io_binding)
    assert ends(found, 2) == ours(path, prompts, **length)


@BINDING
def test_beams_and_batches_of_one_length(optimum: Peer, package: Callable[..., Path], use_io_binding: bool) -> None:
    path, prompts = package("gpt2", "fp32"), [prompt("gpt2", 12, seed=seed).tolist() for seed in range(3)]
    options = {"max_new_tokens": 12, "num_beams": 3, "no_repeat_ngram_size": 2}
    found = optimum.ask("generate", package=str(path), prompts=prompts, options=options, use_io_binding=use_io_binding)
    assert ends(found, 2) == ours(path, prompts, **options)


@pytest.mark.real_model
def test_the_real_model(optimum: Peer, smollm2_package: Callable[[str], Path]) -> None:
    """SmolLM2-135M-Instruct at int8, from a chat to its answer."""
    path = smollm2_package("int8")
    model = edgellm.load(path, threads=1, kernels="off")
    assert isinstance(model, edgellm.Model)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = optimum.ask("tokenize", package=str(path), messages=messages)
    found = optimum.ask("generate", package=str(path), prompts=[ids], options={"max_new_tokens": 30})
    assert tuple(found[0]) == model.chat(messages, max_new_tokens=30).tokens


SIZES = {"t5": (5, 16), "mt5": (3, 16)}  # the number and the size of a decoder's heads
BART_SIZES = (6, 8)


@pytest.fixture(scope="module")
def translator(shared: encoder_decoder_families.Shared) -> Callable[[str, Any], Path]:
    """The package of an encoder-decoder family by name and precision."""
    return lambda name, precision: encoder_decoder_families.package(name, precision, shared)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("family", encoder_decoder_families.BY_NAME)
def test_encoder_decoders(optimum: Peer, translator: Callable[..., Path], family: str, precision: str) -> None:
    """A batch of sources of different lengths, greedily and with beams."""
    path = translator(family, precision)
    rows = [source.tolist() for source in encoder_decoder_families.sources(19, 5, 33, 2)]
    model = edgellm.load(path, threads=1, kernels="off")
    assert isinstance(model, edgellm.EncoderDecoderModel)
    for beams in (1, 4):
        options = {"max_new_tokens": 30, "num_beams": beams}
        found = optimum.ask("translate", package=str(path), sources=rows, options=options)
        expected = [result.tokens for result in model.generate(rows, **options)]
        assert ends(found, encoder_decoder_families.EOS) == expected


@pytest.mark.parametrize("family", ["t5", "mt5", "bart", "marian", "pegasus"])
def test_encoder_decoders_bound(optimum: Peer, translator: Callable[..., Path], family: str) -> None:
    """With IO binding optimum says the cache's shape beforehand, and must know the heads."""
    path, options = translator(family, "int8"), {"max_new_tokens": 20}
    rows = [source.tolist() for source in encoder_decoder_families.sources(19, 5)]
    model = edgellm.load(path, threads=1, kernels="off")
    assert isinstance(model, edgellm.EncoderDecoderModel)
    found = optimum.ask(
        "translate", package=str(path), sources=rows, options=options, use_io_binding=True,
        heads=SIZES.get(family, BART_SIZES),
    )  # fmt: skip
    expected = [result.tokens for result in model.generate(rows, **options)]
    assert ends(found, encoder_decoder_families.EOS) == expected


def test_weights_are_stored_once(translator: Callable[..., Path]) -> None:
    """The graph for optimum has no file of its own: it reads those of the other two."""
    path = translator("t5", "int8")
    assert sorted(file.name for file in path.glob("*.data")) == ["decoder_model.onnx.data", "encoder_model.onnx.data"]
    weights = sum(file.stat().st_size for file in path.glob("*.data"))
    assert (path / "decoder_model_merged.onnx").stat().st_size < weights / 10


ENCODER_CLASSES = {
    "fill-mask": "ORTModelForMaskedLM",
    "text-classification": "ORTModelForSequenceClassification",
    "token-classification": "ORTModelForTokenClassification",
    "question-answering": "ORTModelForQuestionAnswering",
    "feature-extraction": "ORTModelForFeatureExtraction",
}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("int8", 0.05)])
@pytest.mark.parametrize("task", ENCODER_CLASSES)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_encoders(optimum: Peer, tmp_path: Path, family: str, task: str, precision: Any, tolerance: float) -> None:
    """int8 rounds activations, which enlarges the last bits that padding and joined operators change."""
    checkpoint = encoder_families.save_checkpoint(encoder_families.make_model(family, task), tmp_path / "checkpoint")
    path = tmp_path / "package"
    edgellm_export.export(checkpoint, path, precision=precision, verify_quality=False, calibrate=False)
    rows = [np.random.default_rng(seed).integers(5, 131, length).tolist() for seed, length in enumerate((17, 5, 30))]
    model = edgellm.load(path, threads=1, kernels="off")
    assert isinstance(model, edgellm.EncoderModel)
    types = [[0] * len(row) for row in rows] if "token_type_ids" in model.manifest.graphs["model"].inputs else None
    found = optimum.ask("encode", package=str(path), kind=ENCODER_CLASSES[task], inputs=rows, type_ids=types)
    for i, result in enumerate(model.run(rows)):
        for name, expected in result.outputs.items():
            theirs = np.array(found[name][i], np.float32)[: len(expected)]
            assert relative(theirs, expected) < tolerance
