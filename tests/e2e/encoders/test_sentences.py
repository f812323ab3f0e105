"""Sentence encoders: a vector for a text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.numpy import save_file

import edgellm
import edgellm_export
import families
from comparison import relative
from edgellm.errors import (
    CheckpointError,
    ContextOverflowError,
    EdgellmError,
    OptionError,
    TaskError,
    UnsupportedModelError,
)
from edgellm.types import FloatArray
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
    "pooling_mode_mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / len(states) ** 0.5,
    "pooling_mode_weightedmean_tokens": lambda states: np.average(states, axis=0, weights=1 + np.arange(len(states))),
    "pooling_mode_lasttoken": lambda states: states[-1],
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
        model.embed(["a text that is longer than twenty letters"], truncation=None)
    cut = model.embed(["short", "a text that is longer than twenty letters"])
    assert (cut.shape, cut.truncated) == ((2, 48), (1,))
    assert np.array_equal(model.embed("a text that is longer than twenty letters"), cut[1])


def token_heads(path: Path, *, bias: bool = True, **widths: int) -> dict[str, torch.nn.Linear]:
    """Layers as BGE-M3 has them, saved as it saves them."""
    torch.manual_seed(5)
    layers = {name: torch.nn.Linear(48, width, bias=bias) for name, width in widths.items()}
    for name, layer in layers.items():
        torch.save(layer.state_dict(), path / f"{name}.pt")
    return layers


@pytest.mark.parametrize("widths", [{"sparse_linear": 1, "colbert_linear": 24}, {"sparse_linear": 1}])
def test_weights_and_vectors_of_tokens(
    widths: dict[str, int], reference: Callable[..., Any], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Texts of several lengths in one batch; a letter that is there twice, and special ones, which do not count."""
    source = shutil.copytree(checkpoint("xlm-roberta", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "cls"}, normalize=True)
    layers = token_heads(source, **widths)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32")
    model = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1))
    assert model.tokenizer is not None
    texts = ["short", "a longer text", "otto", "x"]
    for text, found in zip(texts, model.embed_tokens(texts), strict=True):
        encoding = model.tokenizer.encoding(text)
        states = torch.from_numpy(
            expected(reference("xlm-roberta", "feature-extraction"), encoding)["last_hidden_state"]
        )
        with torch.no_grad():
            weights = torch.relu(layers["sparse_linear"](states))[:, 0].tolist()
        wanted: dict[int, float] = {}
        for token, weight, special in zip(encoding.ids.tolist(), weights, encoding.special, strict=True):
            if weight > 0 and not special:
                wanted[token] = max(weight, wanted.get(token, 0.0))
        assert found.lexical_weights == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        if "colbert_linear" not in layers:
            assert found.vectors is None
            continue
        with torch.no_grad():
            vectors = torch.nn.functional.normalize(layers["colbert_linear"](states[1:]), dim=-1).numpy()
        assert found.vectors is not None
        assert relative(found.vectors, vectors) < TOLERANCE
    assert any(found.lexical_weights for found in model.embed_tokens(texts))
    assert model.embed(texts).shape == (4, 48)
    quantized = edgellm_export.export(source, tmp_path / "int8", precision="int8")
    assert quantized.report is not None


def test_a_model_without_layers_for_tokens_says_so(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "mean"}, normalize=True)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32", verify_quality=False)
    model = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1))
    with pytest.raises(TaskError, match=r"neither of sparse_linear.pt, colbert_linear.pt"):
        model.embed_tokens(["a"])


@pytest.mark.parametrize(
    ("widths", "said"),
    [({"sparse_linear": 3}, "sparse_linear.weight"), ({"colbert_linear": 8, "bias": False}, "colbert_linear.bias")],
)
def test_layers_for_tokens_of_another_kind_are_refused(
    widths: dict[str, Any], said: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint("xlm-roberta", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "cls"}, normalize=True)
    token_heads(source, **widths)
    with pytest.raises(EdgellmError, match=said):
        edgellm_export.export(source, tmp_path / "package", precision="fp32", verify_quality=False)
    assert not (tmp_path / "package").exists()


def test_the_first_numbers_of_vectors(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """As sentence-transformers cuts them: behind the checkpoint's own norm, and unit vectors again if asked for."""
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "mean"}, normalize=True)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32", verify_quality=False)
    model = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1))
    whole = model.embed(["a", "b c"])
    first = model.embed(["a", "b c"], truncate_dim=7)
    assert np.array_equal(first, whole[:, :7])
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert np.allclose(model.embed(["a", "b c"], truncate_dim=7, normalize=True), unit)
    with pytest.raises(OptionError, match="truncate_dim is 49, expected a whole number from 1 to 48"):
        model.embed("a", truncate_dim=49)


def test_a_checkpoint_with_a_head_for_masked_words_is_a_sentence_encoder(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint("bert", "fill-mask"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "mean"}, normalize=True)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32")
    assert exported.manifest.task == "feature-extraction"
    assert cast(edgellm.EncoderModel, edgellm.load(exported.path)).embed(["a text"]).shape == (1, 48)
    asked = edgellm_export.export(source, tmp_path / "asked", precision="fp32", task="fill-mask")
    assert asked.manifest.task == "fill-mask"


def test_layers_behind_the_pooling(
    reference: Callable[..., Any], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "mean"}, normalize=True)
    rng = np.random.default_rng(0)
    first, second, bias = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((40, 48), (24, 40), (24,)))
    dense_files(source, "2_Dense", first, None, "activation.Tanh")
    dense_files(source, "then/another", second, bias, "linear.Identity")
    for precision, tolerance in (("fp32", TOLERANCE), ("int8", 0.03)):
        exported = edgellm_export.export(source, tmp_path / precision, precision=precision)  # type: ignore[arg-type]
        model = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1))
        states = expected(reference("bert", "feature-extraction"), model.tokenizer.encoding("a text"))
        wanted = second @ np.tanh(first @ states["last_hidden_state"].mean(axis=0)) + bias
        assert relative(model.embed(["a text", "a longer text"])[0], wanted / np.linalg.norm(wanted)) < tolerance


def dense_files(path: Path, step: str, weight: FloatArray, bias: FloatArray | None, activation: str) -> None:
    """A step behind the others but the last."""
    (path / step).mkdir(parents=True)
    (path / step / "config.json").write_text(
        json.dumps(
            {
                "in_features": weight.shape[1],
                "out_features": weight.shape[0],
                "bias": bias is not None,
                "activation_function": f"torch.nn.modules.{activation}",
            }
        )
    )
    tensors = {"linear.weight": weight} if bias is None else {"linear.weight": weight, "linear.bias": bias}
    save_file(tensors, path / step / "model.safetensors")
    modules = json.loads((path / "modules.json").read_text())
    modules.insert(len(modules) - 1, {"path": step, "type": "sentence_transformers.models.Dense"})
    (path / "modules.json").write_text(json.dumps(modules))


def test_a_checkpoint_that_lowers_texts_and_has_prompts(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "cls"}, normalize=False)
    plain = edgellm.load(edgellm_export.export(source, tmp_path / "plain", precision="fp32").path, threads=1)
    sentence_files(source, pooling={"pooling_mode": "cls"}, normalize=False, do_lower_case=True)
    prompts = {"prompts": {"query": "Q: ", "passage": "p: "}, "default_prompt_name": "query"}
    (source / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    model = edgellm.load(edgellm_export.export(source, tmp_path / "package", precision="fp32").path, threads=1)
    assert isinstance(plain, edgellm.EncoderModel)
    assert isinstance(model, edgellm.EncoderModel)
    assert np.array_equal(model.embed(["A Text"]), plain.embed(["q: a text"]))
    assert np.array_equal(model.embed(["A Text"], prompt_name="passage"), plain.embed(["p: a text"]))
    assert np.array_equal(model.embed(["A Text", "x"], prompt="a "), plain.embed(["a a text", "a x"]))
    assert np.array_equal(model.embed([[3, 4]]), plain.embed([[3, 4]]))
    assert np.array_equal(model.embed([("A", "B")]), plain.embed([("q: a", "b")]))


BOTH_WAYS = {"use_bidirectional_attention": True, "sliding_window": 8, "num_hidden_layers": 6}
DECODERS = {
    "gemma3": (families.Family("gemma3-both-ways", families._sized(hf.Gemma3TextConfig, **BOTH_WAYS)), "mean"),
    "gpt2": (families.BY_NAME["gpt2"], "lasttoken"),
    "lfm2": (families.BY_NAME["lfm2"], "lasttoken"),
    "mistral": (families.BY_NAME["mistral-sliding"], "lasttoken"),
    "qwen3": (families.BY_NAME["qwen3"], "lasttoken"),
}


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in DECODERS), ("qwen3", "int8")])
def test_a_sentence_encoder_made_of_a_decoder(name: str, precision: Any, tmp_path: Path) -> None:
    """Its states without its head; of Gemma 3, where tokens see both ways, as in EmbeddingGemma."""
    family, mode = DECODERS[name]
    families.save_checkpoint(families.make_model(family), tmp_path / "checkpoint")
    made = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", attn_implementation="eager")
    width = made.config.hidden_size
    pooling = {"pooling_mode": mode, "word_embedding_dimension": width}
    sentence_files(tmp_path / "checkpoint", pooling=pooling, normalize=True)
    exported = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "package", precision=precision)
    assert exported.manifest.graphs["model"].outputs == ("last_hidden_state", "sentence_embedding")
    model = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1))
    texts = [np.arange(5, 5 + length) for length in (17, 3, 20, 1)]
    for text, vector in zip(texts, model.embed(texts), strict=True):
        with torch.no_grad():
            body = made.transformer if name == "gpt2" else made.model
            states = body(torch.tensor(text[None])).last_hidden_state[0].numpy()
        wanted = states[-1] if mode == "lasttoken" else states.mean(axis=0)
        assert relative(vector, wanted / np.linalg.norm(wanted)) < (TOLERANCE if precision == "fp32" else 0.15)


def test_a_sentence_encoder_made_of_a_decoder_generates_where_a_task_is_named(tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    families.save_checkpoint(families.make_model(families.BY_NAME["llama"]), source)
    sentence_files(source, pooling={"pooling_mode": "mean"}, normalize=True)
    plan = edgellm_export.plan(source, tmp_path / "package", task="text-generation")
    assert plan.prediction.manifest.task == "text-generation"


def test_several_poolings_stand_side_by_side(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    parts = []
    for modes in (["lasttoken", "mean"], "lasttoken", "mean"):
        sentence_files(source, pooling={"pooling_mode": modes}, normalize=False)
        out = tmp_path / str(len(parts))
        edgellm_export.export(source, out, precision="fp32", verify_quality=False)
        parts.append(edgellm.load(out, threads=1).embed(["a text", "b"]))  # type: ignore[union-attr]
    assert np.allclose(parts[0], np.concatenate(parts[1:], axis=1), atol=1e-6)


def test_steps_that_are_not_built_leave_nothing_behind(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint("bert", "feature-extraction"), tmp_path / "checkpoint")
    sentence_files(source, pooling={"pooling_mode": "median"}, normalize=False)
    with pytest.raises(UnsupportedModelError, match="does not build median"):
        edgellm_export.export(source, tmp_path / "package")
    sentence_files(source, pooling={"pooling_mode": "mean", "word_embedding_dimension": 7}, normalize=False)
    with pytest.raises(CheckpointError, match="the dimension is 7"):
        edgellm_export.export(source, tmp_path / "package")
    sentence_files(source, pooling={"pooling_mode": "mean"}, normalize=True)
    dense_files(source, "2_Dense", np.zeros((4, 7), np.float32), None, "activation.Tanh")
    with pytest.raises(CheckpointError, match="in_features is 7, and its inputs have 48"):
        edgellm_export.export(source, tmp_path / "package")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
