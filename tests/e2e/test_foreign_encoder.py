"""Optimum's graphs of encoders, as they are and as packages of ours, whoever else builds the family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from onnxruntime.quantization import QuantType, quantize_dynamic

import edgellm
import edgellm_export
from comparison import relative
from edgellm_export.optimum.conversion import export_graphs, task_of
from edgellm_export.sources.opening import open_checkpoint
from optimum_models import CONTEXT, VOCAB, save_checkpoint

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude
LENGTHS = (5, 31, 17, 17, 8)
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 88,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
}
LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
MODELS: dict[str, Callable[[], Any]] = {
    "text-classification": lambda: hf.AlbertForSequenceClassification(
        hf.AlbertConfig(**SIZES, **LABELS, embedding_size=32, classifier_dropout_prob=0.0)
    ),
    "token-classification": lambda: hf.AlbertForTokenClassification(hf.AlbertConfig(**SIZES, **LABELS)),
    "fill-mask": lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(**SIZES)),
    "question-answering": lambda: hf.MPNetForQuestionAnswering(hf.MPNetConfig(**SIZES)),
    "feature-extraction": lambda: hf.AlbertModel(hf.AlbertConfig(**SIZES)),
}


@pytest.fixture(scope="session")
def original() -> Callable[[str], Any]:
    @cache
    def make(task: str) -> Any:
        torch.manual_seed(sum(map(ord, task)))
        model = MODELS[task]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter)
                parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
        return model

    return make


@pytest.fixture(scope="session")
def checkpoint(original: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda task: save_checkpoint(original(task), tmp_path_factory.mktemp("checkpoint") / task))


@pytest.fixture(scope="session")
def directory(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What optimum itself writes."""

    @cache
    def make(task: str) -> Path:
        path = tmp_path_factory.mktemp("optimum") / task
        export_graphs(checkpoint(task), path, task)  # type: ignore[arg-type]
        return path

    return make


def leaking(config: str, **sizes: Any) -> Any:
    torch.manual_seed(1)
    model = hf.AutoModel.from_config(getattr(hf, config)(**{**SIZES, **sizes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    return model


BOTTLENECK = {"embedding_size": 32, "intra_bottleneck_size": 24, "true_hidden_size": 24, "num_attention_heads": 4}


@pytest.mark.parametrize(("config", "sizes"), [("ConvBertConfig", {}), ("MobileBertConfig", BOTTLENECK)])
def test_padding_that_leaks_is_found_out_and_not_done(config: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    """Convolutions over tokens, and embeddings that look at their neighbours: 15 to 25% off in a padded row."""
    source = save_checkpoint(leaking(config, **sizes), tmp_path / "checkpoint")
    export_graphs(source, tmp_path / "graphs", "feature-extraction")
    models = [edgellm.load(tmp_path / "graphs", threads=1)]
    for origin, precision in ((source, "fp32"), (source, "int8"), (tmp_path / "graphs", "fp32")):
        out = tmp_path / f"{origin.name}-{precision}"
        exported = edgellm_export.export(origin, out, precision=precision, via="optimum", task="feature-extraction")  # type: ignore[arg-type]
        assert exported.manifest.model.lengths_apart
        models.append(edgellm.load(out, threads=1))
    for model in models:
        assert not model.takes_padding
        for got, ids in zip(model.run(inputs()), inputs(), strict=True):
            assert relative(got.logits, model.run([ids])[0].logits) < 1e-5


XLM = {"emb_dim": 48, "n_layers": 2, "n_heads": 6, "n_langs": 1, "causal": False}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}


@pytest.mark.parametrize(
    "config",
    [
        hf.XLMConfig(vocab_size=VOCAB, max_position_embeddings=CONTEXT, pad_index=0, **XLM),
        hf.DebertaV2Config(**SIZES, **DEBERTA),
    ],
    ids=lambda config: config.model_type,
)
def test_families_with_something_of_their_own(config: Any, tmp_path: Path) -> None:
    """XLM's class of masked words is not named as others'; a branch in DeBERTa's graph gives a value of outside."""
    torch.manual_seed(1)
    model = hf.AutoModelForMaskedLM.from_config(config).eval()
    source = save_checkpoint(model, tmp_path / "checkpoint")
    package = edgellm_export.export(source, tmp_path / "package", precision="fp32", via="optimum").path
    ours = edgellm.load(package, threads=1)
    assert ours.manifest.task == "fill-mask"
    for got, ids in zip(ours.run(inputs()), inputs(), strict=True):
        with torch.no_grad():
            expected = model(torch.tensor(ids[None])).logits[0].numpy()
        assert relative(got.logits, expected) < LOGITS_TOLERANCE


def inputs(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, length) for length in LENGTHS]


EACH = pytest.mark.parametrize("task", MODELS)


@EACH
def test_a_directory_as_it_is(task: str, original: Callable[[str], Any], directory: Callable[[str], Path]) -> None:
    model = edgellm.load(directory(task), threads=1)
    assert model.manifest.task == task
    for got, ids in zip(model.run(inputs()), inputs(), strict=True):
        with torch.no_grad():
            expected = original(task)(torch.tensor(ids[None]))
        for name, array in got.outputs.items():
            assert relative(array, expected[name][0].numpy()) < LOGITS_TOLERANCE


@EACH
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_packages(task: str, precision: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    assert task_of(open_checkpoint(str(checkpoint(task))).config) == task
    exported = edgellm_export.export(
        checkpoint(task), tmp_path / "out", precision=precision, via="optimum", keep_failed=True
    )
    assert exported.report.quality.error < {"fp32": 2e-5, "int8": 0.1, "int4": 0.6}[precision]
    model = edgellm.load(exported.path, threads=1)
    assert (model.manifest.task, model.info.precision) == (task, precision)
    together = model.run(inputs())
    for got, ids in zip(together, inputs(), strict=True):
        for name, array in model.run([ids])[0].outputs.items():
            assert relative(got.outputs[name], array) < {"fp32": 1e-5, "int8": 0.02, "int4": 0.02}[precision]


def _make_sentence_encoder(path: Path, pooling: dict[str, Any]) -> None:
    """The files that sentence-transformers keeps beside a model. `pooling`: the config of that step."""
    steps = ["models.Transformer", "models.Pooling", "models.Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"type": f"sentence_transformers.{s}", "path": p} for s, p in zip(steps, paths, strict=True)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ({"pooling_mode_mean_tokens": True}, np.mean),
        ({"pooling_mode_max_tokens": True}, np.max),
        ({"pooling_mode_cls_token": True}, None),
        ({"pooling_mode": "mean", "embedding_dimension": 48}, np.mean),  # the newer spelling
    ],
)
def test_sentence_encoders(
    pooling: dict[str, Any],
    pool: Any,
    original: Callable[[str], Any],
    directory: Callable[[str], Path],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Graphs that give the states of tokens only: the vector is made of them by the runtime."""
    for name, source in (("graphs", directory), ("checkpoint", checkpoint)):
        shutil.copytree(source("feature-extraction"), tmp_path / name)
        _make_sentence_encoder(tmp_path / name, pooling)
    exported = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32", via="optimum")
    for path in (tmp_path / "graphs", exported.path):
        model = edgellm.load(path, threads=1)
        for got, ids in zip(model.embed(inputs()), inputs(), strict=True):
            with torch.no_grad():
                states = original("feature-extraction")(torch.tensor(ids[None])).last_hidden_state[0].numpy()
            vector = states[0] if pool is None else pool(states, axis=0)
            assert relative(got, vector / np.linalg.norm(vector)) < LOGITS_TOLERANCE
        with pytest.raises(edgellm.ContextOverflowError, match="at most 40"):
            model.embed([np.full(41, 5)], truncation=None)


def test_steps_that_are_not_done_give_no_vector(directory: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(directory("feature-extraction"), tmp_path / "graphs")
    _make_sentence_encoder(tmp_path / "graphs", {"pooling_mode": "median"})
    model = edgellm.load(tmp_path / "graphs", threads=1)
    assert model.run(inputs())[0].logits.shape == (LENGTHS[0], 48)
    with pytest.raises(edgellm.TaskError):
        model.embed(inputs())


def test_labels(directory: Callable[[str], Path]) -> None:
    assert edgellm.load(directory("text-classification"), threads=1).labels == LABELS["id2label"]


def test_a_graph_that_mixes_rows(directory: Callable[[str], Path], tmp_path: Path) -> None:
    """ONNX Runtime's dynamic quantization has one scale for all activations: rows are run one by one."""
    source = directory("text-classification")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    quantize_dynamic(source / "model.onnx", tmp_path / "model_quantized.onnx", weight_type=QuantType.QUInt8)
    model = edgellm.load(tmp_path / "model_quantized.onnx", threads=1)
    assert model.info.precision == "int8"
    for got, ids in zip(model.run(inputs()), inputs(), strict=True):
        assert np.array_equal(got.logits, model.run([ids])[0].logits)
    assert relative(got.logits, edgellm.load(source, threads=1).run([inputs()[-1]])[0].logits) < 0.2


def test_an_output_without_its_task(directory: Callable[[str], Path], tmp_path: Path) -> None:
    """Logits of each token might be labels or the vocabulary: the class in config.json says."""
    source = directory("token-classification")
    (tmp_path / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    (tmp_path / "config.json").write_text('{"vocab_size": 131}')
    with pytest.raises(edgellm.PackageError, match="outputs logits"):
        edgellm.load(tmp_path)
