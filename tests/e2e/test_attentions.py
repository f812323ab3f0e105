"""Attention weights against transformers' eager attention, and their picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
from comparison import fresh, prompt, relative
from edgellm.errors import ExportError, MissingDependencyError, OptionError, QualityGateError
from encoder_decoder_families import BY_NAME as ENCODER_DECODERS
from encoder_decoder_families import make_model as make_encoder_decoder
from encoder_decoder_families import save_checkpoint, sources
from text_checkpoints import SENTENCES, Recipe

LENGTH = 30
DECODERS = [
    "gpt2",
    "qwen3_moe",
    "deepseek_v2",
    "gemma3n",
    "llama",
    "llama-dynamic",
    "mistral-sliding",
    "qwen3",
    "phi3-longrope",
    "gemma2",
    "gemma3",
    "lfm2",
]


def export(source: Path, out: Path, **options: Any) -> Path:
    settings = {"precision": "fp32", "verify_quality": False, "calibrate": False, "attentions": True}
    return edgellm_export.export(source, out, **settings | options).path


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(
    name: str, reference: Callable[[str], Any], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    ids = prompt(name, LENGTH, seed=2)
    with torch.no_grad():
        expected = fresh(reference(name))(torch.tensor(ids[None]), output_attentions=True)
    model = edgellm.load(export(checkpoint(name), tmp_path / "package"), threads=1)
    result = model.run(ids, output_attentions=True)
    assert result.tokens == tuple(ids.tolist())
    assert relative(result.logits, expected.logits[0].numpy()) < 2e-5
    weights = np.stack([layer[0].numpy() for layer in expected.attentions])
    assert result.attentions.weights.shape == weights.shape
    np.testing.assert_allclose(result.attentions.weights, weights, atol=1e-5)
    assert len(result.attentions.tokens) == len(result.attentions.seen) == LENGTH
    assert model.generate(ids, max_new_tokens=5).tokens  # the cache works as ever
    plain = model.run(ids)
    assert plain.attentions is None
    np.testing.assert_allclose(plain.logits, result.logits, atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("task", ["text-classification", "question-answering"])
def test_encoders(family: str, task: str, tmp_path: Path) -> None:
    made = Recipe(family, task, ("a", "b") if task == "text-classification" else ()).make(tmp_path / "checkpoint")
    model = edgellm.load(export(made.path, tmp_path / "package"), threads=1)
    results = model.run(SENTENCES, output_attentions=True)
    for text, result, plain in zip(SENTENCES, results, model.run(SENTENCES), strict=True):
        inputs = made.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = made.model(**inputs, output_attentions=True).attentions
        weights = np.stack([layer[0].numpy() for layer in expected])
        np.testing.assert_allclose(result.attentions.weights, weights, atol=1e-5)
        assert result.attentions.tokens == tuple(made.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]))
        assert plain.attentions is None
        for name, value in plain.outputs.items():
            np.testing.assert_allclose(result.outputs[name], value, atol=1e-5)


def test_int8_packages_with_a_report(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    made = Recipe("bert", "fill-mask").make(tmp_path / "checkpoint")
    for number, source in enumerate((checkpoint("llama"), made.path)):
        options = {"precision": "int8", "verify_quality": True, "keep_failed": True}
        try:
            package = export(source, tmp_path / str(number), **options)
        except QualityGateError:  # weights this random do not take rounding well
            package = tmp_path / f"{number}.failed"
        model = edgellm.load(package, threads=1)
        prompt: Any = SENTENCES[0] if number == 0 else [SENTENCES[0]]
        found = model.run(prompt, output_attentions=True)
        weights = (found if number == 0 else found[0]).attentions.weights
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_packages_without(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = edgellm.load(export(checkpoint("gpt2"), tmp_path / "package", attentions=False), threads=1)
    with pytest.raises(OptionError, match=r"exported for it: `edgellm export SOURCE OUT --attentions`"):
        model.run("a", output_attentions=True)


@pytest.mark.parametrize("options", [{"target": "cuda", "precision": "fp16"}, {"kv_cache": "int8"}], ids=str)
def test_exports_that_cannot_give_them(
    options: dict[str, Any], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="attention weights come from the CPU's kernel with a float cache only"):
        export(checkpoint("llama"), tmp_path / "package", **options)


@pytest.mark.parametrize("name", ["t5", "t5gemma", "mt5", "bart", "marian", "pegasus"])
def test_encoder_decoders(name: str, tmp_path: Path) -> None:
    reference = make_encoder_decoder(ENCODER_DECODERS[name])
    save_checkpoint(reference, tmp_path / "checkpoint")
    source, target = (row.tolist() for row in sources(17, 9, seed=3))
    with torch.no_grad():
        expected = reference(torch.tensor([source]), decoder_input_ids=torch.tensor([target]), output_attentions=True)
    model = edgellm.load(export(tmp_path / "checkpoint", tmp_path / "package"), threads=1)
    result = model.run(source, target, output_attentions=True)
    assert (result.source, result.target) == (tuple(source), tuple(target))
    assert relative(result.logits, expected.logits[0].numpy()) < 2e-5
    for kind in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        weights = np.stack([layer[0].numpy() for layer in getattr(expected, kind)])
        found = getattr(result, kind)
        assert found.weights.shape == (*weights.shape[:2], len(found.tokens), len(found.seen)) == weights.shape
        np.testing.assert_allclose(found.weights, weights, atol=1e-5)
    plain = model.run(source, target)
    assert plain.cross_attentions is None
    np.testing.assert_allclose(plain.logits, result.logits, atol=1e-3)
    assert model.generate(source, num_beams=3, max_new_tokens=5).tokens


def test_graphs_of_others_do_not_give_them(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="of graphs that edgellm builds itself; leave out --attentions"):
        export(checkpoint("gpt2"), tmp_path / "package", via="optimum")


def test_encoder_decoders_without(tmp_path: Path) -> None:
    save_checkpoint(make_encoder_decoder(ENCODER_DECODERS["t5"]), tmp_path / "checkpoint")
    model = edgellm.load(export(tmp_path / "checkpoint", tmp_path / "package", attentions=False), threads=1)
    with pytest.raises(OptionError, match="exported for it"):
        model.run([5, 6], [0, 7], output_attentions=True)
    with pytest.raises(ExportError, match="from the CPU's kernels only"):
        export(tmp_path / "checkpoint", tmp_path / "cuda", target="cuda", precision="fp16")


@pytest.fixture
def attentions() -> edgellm.Attentions:
    weights = np.random.default_rng(0).random((3, 4, 5, 5), np.float32)
    tokens = ("[CLS]", "a", "ä", "好", "[SEP]")
    return edgellm.Attentions(weights / weights.sum(-1, keepdims=True), tokens, tokens)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("chosen", [{}, {"layer": -1}, {"head": 2}, {"layer": 1, "head": 0}], ids=str)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture(attentions: edgellm.Attentions, chosen: dict[str, int], suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"picture{suffix}"
    edgellm.plot_attentions(attentions, path, **chosen)
    assert path.read_bytes().startswith({".png": b"\x89PNG", ".svg": b"<?xml"}[suffix])


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("picture.txt", {}, "expected a name that ends in .png or .svg"),
        ("no/such/directory.png", {}, "in a directory that exists"),
        ("picture.png", {"layer": 3}, "layer is 3, expected a whole number from -3 to 2"),
        ("picture.png", {"head": "all"}, "head is 'all'"),
    ],
)
def test_pictures_that_cannot_be(
    name: str, chosen: dict[str, Any], message: str, attentions: edgellm.Attentions, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        edgellm.plot_attentions(attentions, tmp_path / name, **chosen)


def test_no_matplotlib(attentions: edgellm.Attentions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install edgellm\[plot\]"):
        edgellm.plot_attentions(attentions, tmp_path / "picture.png")
