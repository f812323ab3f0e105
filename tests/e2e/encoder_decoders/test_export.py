"""Exports of encoder-decoders: what they make of a checkpoint, and which they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from onnxruntime import get_available_providers
from safetensors.numpy import load_file, save_file

import edgellm
import edgellm_export
from comparison import relative
from edgellm.package.manifest import EncoderDecoderFacts
from edgellm.package.report import GenerationReport
from encoder_decoder_checks import LOGITS_TOLERANCE, Load, Reference
from encoder_decoder_families import BY_NAME, LONGEST, make_model, reference_logits, save_checkpoint, sources


@pytest.mark.parametrize("name", ["t5-gated", "t5gemma", "longt5-global", "marian", "prophetnet"])
def test_cuda_packages_on_the_cpu(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Their graphs compute in float16; the comparison with the original runs them."""
    out = edgellm_export.export(checkpoint(name), tmp_path / "package", precision="fp16", target="cuda")
    assert isinstance(out.report, GenerationReport)
    assert out.report.quality.device == ("cuda" if "CUDAExecutionProvider" in get_available_providers() else "cpu")
    assert out.report.passed


@pytest.mark.parametrize(
    "name",
    ["t5", "t5-gated", "t5gemma", "longt5", "longt5-global", "led-near", "bart-relu", "pegasus", "prophetnet"],
)
def test_calibrated_export(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Channel scales where they are legal, a report that passes and names each matrix with its blocks and error."""
    text = tmp_path / "text"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    out = edgellm_export.export(checkpoint(name), tmp_path / "package", precision="int8", calibration=text)
    report = out.report
    assert isinstance(report, GenerationReport)
    assert report.passed
    assert {(m.bits, m.block_size) for m in report.matrices if m.error is not None} == {(8, 64)}
    (head,) = (m for m in report.matrices if m.error is None)
    assert (head.node.split("/")[1], head.block_size) == ("lm_head", 32)
    config = BY_NAME[name].config()
    counts = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    sizes = config.to_dict() | config.to_dict().get("decoder", {})
    count = next(sizes[key] for key in counts if key in sizes)
    assert [layer.part for layer in report.layers] == ["encoder"] * 3 + ["decoder"] * count
    assert max(layer.error for layer in report.layers) < 0.05
    assert max(m.error for m in report.matrices if m.error is not None) < 0.02


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.shared.weight", "model.shared.weight"),
        ("model.decoder.layers.1.encoder_attn.k_proj.bias", "encoder_attn.k_proj.bias"),
        ("model.encoder.layernorm_embedding.weight", "model.encoder.layernorm_embedding.weight"),
    ],
)
def test_missing_weights(missing: str, message: str, reference: Reference, tmp_path: Path) -> None:
    save_checkpoint(reference("bart"), tmp_path / "checkpoint")
    tensors = load_file(tmp_path / "checkpoint" / "model.safetensors")
    del tensors[missing]
    save_file(tensors, tmp_path / "checkpoint" / "model.safetensors")
    with pytest.raises(edgellm.EdgellmError, match=message):
        edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32")
    assert not (tmp_path / "out").exists()


def test_names_of_tied_embeddings(reference: Reference, load: Load, tmp_path: Path) -> None:
    """One of the names of a tied matrix, whichever it is, and names without their prefix."""
    source, target = sources(9)[0], sources(6, seed=1)[0]
    for name, old, new in [
        ("t5", "shared.weight", "encoder.embed_tokens.weight"),
        ("t5", "shared.weight", "lm_head.weight"),
        ("bart", "model.shared.weight", "model.decoder.embed_tokens.weight"),
    ]:
        path = tmp_path / f"{name}-{new}"
        save_checkpoint(reference(name), path / "checkpoint")
        tensors = load_file(path / "checkpoint" / "model.safetensors")
        tensors[new] = tensors.pop(old)
        save_file(tensors, path / "checkpoint" / "model.safetensors")
        out = edgellm_export.export(path / "checkpoint", path / "out", precision="fp32", verify_quality=False)
        model = edgellm.load(out.path, threads=1)
        assert isinstance(model, edgellm.EncoderDecoderModel)
        assert np.array_equal(model.logits(source, target), load(name).logits(source, target))


def test_a_table_of_positions_in_the_checkpoint_counts(reference: Reference, tmp_path: Path) -> None:
    """Even where it would follow from the config: transformers reads it too."""
    model = make_model(BY_NAME["pegasus"])
    with torch.no_grad():
        model.model.encoder.embed_positions.weight += 0.3 * torch.randn(LONGEST, 48)
        model.model.decoder.embed_positions.weight *= 0.5
    save_checkpoint(model, tmp_path / "checkpoint")
    out = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32", verify_quality=False)
    found = edgellm.load(out.path, threads=1)
    assert isinstance(found, edgellm.EncoderDecoderModel)
    source, target = sources(19)[0], sources(12, seed=1)[0]
    loaded = hf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint", attn_implementation="eager")
    expected = reference_logits(loaded, source, target)
    assert relative(found.logits(source, target), expected) < LOGITS_TOLERANCE
    assert relative(reference_logits(reference("pegasus"), source, target), expected) > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_cache": "int8"}, "float key/value cache only"),
        ({"task": "fill-mask"}, "is for text2text-generation, not for fill-mask"),
        ({"target": "cuda", "precision": "fp32"}, "no float32"),
        ({"global_attention": "first"}, "global attention is LED's"),
        ({"global_attention": "last"}, "global_attention is 'last', expected 'none' or 'first'"),
    ],
)
def test_exports_that_cannot_be(
    options: dict[str, Any], message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(edgellm.EdgellmError, match=message):
        edgellm_export.export(checkpoint("t5"), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("name", "attention"),
    [("longt5", "attention in blocks"), ("led-near", "attention in blocks"), ("prophetnet", "a predicting stream")],
)
def test_attention_that_gives_no_weights(
    name: str, attention: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(edgellm.EdgellmError, match=f"no attention weights of {attention}"):
        edgellm_export.export(checkpoint(name), tmp_path / "out", attentions=True)


def test_global_attention_of_the_first_token(
    checkpoint: Callable[[str], Path], reference: Reference, load: Load, tmp_path: Path
) -> None:
    """Calibrated, it passes the gate. The layers for it are in the package, and without the option they are not."""
    options: dict[str, Any] = {"precision": "int8", "global_attention": "first"}
    out = edgellm_export.export(checkpoint("led-first"), tmp_path / "package", **options)
    assert isinstance(out.report, GenerationReport)
    assert out.report.passed
    assert isinstance(out.manifest.model, EncoderDecoderFacts)
    assert out.manifest.model.global_attention == "first"
    assert sum("_global" in matrix.node for matrix in out.report.matrices) == 3 * 3
    plan = edgellm_export.plan(checkpoint("led-first"), tmp_path / "none", **options)
    assert plan.prediction.size == pytest.approx(sum(each.size for each in out.manifest.files.values()), rel=0.05)
    without = edgellm_export.export(checkpoint("led-first"), tmp_path / "without", precision="fp32")
    assert "global_attention" not in without.manifest.to_dict()
    model = edgellm.load(without.path, threads=1)
    assert isinstance(model, edgellm.EncoderDecoderModel)
    source, target = sources(40)[0], sources(9, seed=1)[0]
    expected = reference_logits(reference("led-first"), source, target)
    assert relative(load("led-first").logits(source, target), expected) < LOGITS_TOLERANCE
    assert relative(model.logits(source, target), expected) > 0.01


def test_global_attention_of_another_kind_of_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({f"{i}": np.zeros(1, np.float32) for i in range(9)}, tmp_path / "model.safetensors")
    with pytest.raises(edgellm.EdgellmError, match="global attention is LED's"):
        edgellm_export.plan(tmp_path, tmp_path / "out", global_attention="first")


def test_heads_that_attention_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BY_NAME["bart"].config().to_dict() | {"d_model": 36}))
    save_file({f"{i}": np.zeros(1, np.float32) for i in range(9)}, tmp_path / "model.safetensors")
    with pytest.raises(edgellm.EdgellmError, match="multiples of 8"):
        edgellm_export.export(tmp_path, tmp_path / "out")
