"""Encoder-only packages against transformers on the same weights, and against themselves in other batches."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import edgellm
import edgellm_export
from comparison import relative
from edgellm.cli import cli
from edgellm.errors import (
    CheckpointError,
    ContextOverflowError,
    EdgellmError,
    ExportError,
    InputError,
    OptionError,
    PackageCorruptError,
    QualityGateError,
    TaskError,
    TensorError,
    UnsupportedModelError,
)
from edgellm.models.encoder import buckets
from edgellm.package.files import read_manifest, write_manifest
from edgellm.package.manifest import Manifest
from edgellm.text.encodings import Encoding
from edgellm_export.blocks.channels import ChannelMoves
from edgellm_export.calibration.encoder import by_size, together
from edgellm_export.calibration.rounding import Calibration, channel_scales, channel_shifts
from edgellm_export.checkpoint.tensors import ArrayTensor
from edgellm_export.float_run.encoder import EncoderRun
from edgellm_export.float_run.layers import FloatLayer
from edgellm_export.quantize import blockwise, scheme_for
from edgellm_export.quantize.formats import RowFormat
from encoder_families import BY_NAME, CASES, CONTEXT, LABELS, make_model, save_checkpoint

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
    found = [result.outputs for result in model.run(inputs(name))]
    wanted = [expected(reference(name, task), one) for one in inputs(name)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert {key: array.shape for key, array in ours.items()} == {key: a.shape for key, a in theirs.items()}
    for key in wanted[0]:  # of all inputs together: a single one may have nothing but small numbers
        assert relative(*(np.concatenate([outputs[key].ravel() for outputs in o]) for o in (found, wanted))) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize(("name", "task"), [("bert", "feature-extraction"), ("roberta", "text-classification")])
def test_results_do_not_depend_on_the_batch(name: str, task: str, precision: str, load: Callable[..., Any]) -> None:
    model = load(name, task, precision)
    together = model.run(inputs(name) + inputs(name, seed=1))
    for one, result in zip(inputs(name), together, strict=False):
        (alone,) = model.run([one])
        for key in alone.outputs:
            assert relative(result.outputs[key], alone.outputs[key]) < TOLERANCE


def test_pairs_of_texts_have_types(reference: Callable[..., Any], load: Callable[..., Any]) -> None:
    model = load("bert", "text-classification", "fp32")
    encoding = model.tokenizer.encoding("one", "two")
    assert set(encoding.type_ids.tolist()) == {0, 1}
    (result,) = model.run([("one", "two")])
    wanted = expected(reference("bert", "text-classification"), encoding)
    assert relative(result.logits, wanted["logits"]) < TOLERANCE
    assert model.labels == LABELS


def test_tensors_of_another_head_are_left_alone(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A masked language model's weights, exported for its hidden states."""
    exported = edgellm_export.export(
        checkpoint("bert", "fill-mask"), tmp_path / "out", precision="fp32", task="feature-extraction"
    )
    assert exported.manifest.graphs["model"].outputs == ("last_hidden_state",)
    assert exported.report is not None
    assert exported.report.passed


@pytest.mark.parametrize(("name", "task"), CASES[::6])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_report_passes(
    name: str, task: str, precision: Any, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    exported = edgellm_export.export(checkpoint(name, task), tmp_path / "out", precision=precision)
    assert exported.report is not None
    assert exported.report.passed
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.stderr
    assert "cosine" in shown.stdout
    assert "verdict      passed" in shown.stdout


def test_a_damaged_quantizer_fails_the_gate(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange = blockwise.arrange

    def upside_down(*what: Any) -> blockwise.Blocks:
        blocks = arrange(*what)
        return blockwise.Blocks(blocks.quants[::-1], blocks.scales, blocks.zero_points)

    monkeypatch.setattr(blockwise, "arrange", upside_down)
    result = CliRunner().invoke(
        cli, ["export", str(checkpoint("bert", "fill-mask")), str(tmp_path / "out"), "--no-calibration"]
    )
    assert (result.exit_code, result.stdout) == (6, "")
    assert "too far from the original: its logits differ by" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize(
    ("tensor", "value"),
    [("intermediate.dense.weight", 1e38), ("intermediate.dense.weight", np.nan), ("LayerNorm.bias", np.inf)],
)
def test_damaged_weights_end_in_one_error(
    tensor: str, value: float, precision: Any, reference: Callable[..., Any], tmp_path: Path
) -> None:
    """And in no warnings, which would be errors here."""
    model = copy.deepcopy(reference("bert", "feature-extraction"))
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "layer.1" in n and n.endswith(tensor)).view(-1)[:9] = value
    source = save_checkpoint(model, tmp_path / "checkpoint")
    with pytest.raises(QualityGateError, match=r"not numbers|differ by nan%"):
        edgellm_export.export(source, tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", BY_NAME)
def test_moves_change_nothing_in_float(
    name: str,
    checkpoint: Callable[..., Path],
    reference: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a norm or a value is divided by, exactly the layers behind it are multiplied by, and the residual too; what
    is subtracted from it, their biases have. And the sum of a layer's parts is the layer."""
    used: dict[str, Any] = {}
    subtracted: dict[str, Any] = {}
    splits: dict[str, Any] = {}

    def calibrated(original: EncoderRun, *rest: Any) -> Calibration:
        """As for an integer package, but large, and nothing rounded."""
        rng = np.random.default_rng(0)
        family = original.model.family

        def step(layer: FloatLayer, states: Any) -> Any:
            after, linears = layer.observed(states)
            found = channel_scales(linears)
            used.update({key: np.exp(rng.normal(0, 1, value.shape)).astype(np.float32) for key, value in found.items()})
            shifts = channel_shifts(linears)
            subtracted.update({key: rng.normal(0, 3, value.shape).astype(np.float32) for key, value in shifts.items()})
            channels = rng.permutation(family.config.intermediate_size)
            splits[family.layer_names(layer.index).up] = np.split(channels, [7, 30])
            return after

        original.through(inputs(name), step)
        return Calibration("test", moves=ChannelMoves(used, subtracted, splits))

    float_scheme = dataclasses.replace(scheme_for("fp32", "cpu"), candidates=(RowFormat(),))
    monkeypatch.setattr("edgellm_export.exporters.recipe.scheme_for", lambda precision, target: float_scheme)
    monkeypatch.setattr("edgellm_export.exporters.encoder.calibrate_encoder", calibrated)
    exported = edgellm_export.export(checkpoint(name, "feature-extraction"), tmp_path / "package", precision="fp32")
    # In front of attention, inside it, and in front of the MLP; not where a linear layer is in front of the first.
    assert len(used) == len(subtracted) == 3 * 3 - (name == "electra")
    found = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1)).run(inputs(name))
    wanted = [expected(reference(name, "feature-extraction"), one)["last_hidden_state"] for one in inputs(name)]
    assert relative(np.concatenate([result.logits for result in found]), np.concatenate(wanted)) < TOLERANCE
    assert exported.report is not None
    assert max(layer.error for layer in exported.report.layers) < TOLERANCE


def test_channels_that_are_always_large_cost_nothing(
    reference: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in trained models, whose norms' biases are large in some channels: what varies beside them is kept."""
    model = copy.deepcopy(reference("bert", "feature-extraction"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("LayerNorm.bias") and "encoder" in name:
                parameter[::7] += 30
    source = save_checkpoint(model, tmp_path / "checkpoint")

    def varying(precision: Any, out: str) -> np.ndarray:
        path = edgellm_export.export(source, tmp_path / out, precision=precision).path
        results = cast(edgellm.EncoderModel, edgellm.load(path, threads=1)).run(inputs("bert"))
        states = np.concatenate([result.logits for result in results])
        return states - states.mean(axis=0)

    wanted, shifted = varying("fp32", "float"), varying("int8", "shifted")
    monkeypatch.setattr("edgellm_export.calibration.encoder.channel_shifts", lambda linears: {})
    unshifted = varying("int8", "unshifted")
    assert np.linalg.norm(shifted - wanted) < 0.7 * np.linalg.norm(unshifted - wanted)


def test_large_channels_are_set_apart() -> None:
    values = np.random.default_rng(0).normal(size=(50, 200)).astype(np.float32)
    large = np.sort(np.random.default_rng(1).permutation(200)[:32])
    values[:, large] *= -9
    usual, apart = by_size(values)
    np.testing.assert_array_equal(apart, large)
    np.testing.assert_array_equal(np.sort([*usual, *apart]), np.arange(200))
    assert [len(part) for part in by_size(values[:, :90])] == [90]
    wide = np.arange(1, 3073, dtype=np.float32)[None]
    small, middle, largest = by_size(wide)  # none has more columns than are compensated
    np.testing.assert_array_equal(np.concatenate([small, middle, largest]), np.arange(3072))
    assert (len(small), len(middle), len(largest)) == (1280, 1280, 512)


def test_errors_of_parts_together() -> None:
    """As if each part's outputs had been changed by its error, independently."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(300, size)).astype(np.float32) for size in (40, 25)]
    matrices = [rng.normal(size=(400, size)).astype(np.float32) * scale for size, scale in ((40, 1), (25, 3))]
    outputs = [x @ w.T for x, w in zip(inputs, matrices, strict=True)]
    wrong = [error * rng.normal(size=y.shape) * np.sqrt(np.mean(y**2, axis=1, keepdims=True)) for error, y in
             zip((0.02, 0.01), outputs, strict=True)]  # fmt: skip
    shares = np.linalg.norm(sum(wrong), axis=1) / np.linalg.norm(sum(outputs), axis=1)
    parts = [(x, ArrayTensor("w", w), error) for x, w, error in zip(inputs, matrices, (0.02, 0.01), strict=True)]
    assert together(parts) == pytest.approx(np.sqrt(np.mean(shares**2)), rel=0.02)


# Sentence encoders


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


# Bad input


def config(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = json.loads((path / "config.json").read_text()) | changes
        (path / "config.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))

    return damage


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], None], dict[str, Any], type[EdgellmError], str]] = {
    "no head": (
        "feature-extraction", config(), {"task": "text-classification"}, TensorError, "classifier.weight [2, 48]",
    ),
    "no masked LM": ("feature-extraction", config(), {"task": "fill-mask"}, TensorError, "cls.predictions.bias [131]"),
    "no answers": ("fill-mask", config(), {"task": "question-answering"}, TensorError, "qa_outputs.weight [2, 48]"),
    "a generating task": (
        "fill-mask", config(), {"task": "text-generation"}, UnsupportedModelError, "does not generate",
    ),
    "no task": ("fill-mask", config(architectures=None), {}, CheckpointError, "say it with --task"),
    "an unknown head": (
        "fill-mask", config(architectures=["BertForMultipleChoice"]), {}, UnsupportedModelError,
        "does not build the head of BertForMultipleChoice",
    ),
    "fewer labels": (
        "text-classification", config(id2label={"0": "a", "1": "b"}, label2id=None), {}, CheckpointError,
        "names 2 labels (['a', 'b']), and the checkpoint's classifier has 3 outputs",
    ),
    "labels with a gap": (
        "token-classification", config(id2label={"0": "a", "2": "b", "3": "c"}), {}, CheckpointError,
        "keys of id2label are not the numbers from 0",
    ),
    "labels that are a list": ("text-classification", config(id2label=["a"]), {}, CheckpointError, "keys of id2label"),
    "labels that are numbers": (
        "text-classification", config(id2label={"0": 1, "1": 2, "2": 3}), {}, CheckpointError, "not text",
    ),
    "two maps that disagree": (
        "text-classification", config(label2id={"bad": 1, "good": 0, "neither": 2}), {}, CheckpointError,
        "id2label and label2id disagree about 'bad'",
    ),
    "another problem": (
        "text-classification", config(problem_type="ranking"), {}, UnsupportedModelError, "problem_type is 'ranking'",
    ),
    "relative positions": (
        "fill-mask", config(position_embedding_type="relative_key"), {}, UnsupportedModelError,
        "position_embedding_type is 'relative_key'",
    ),
    "a decoder": ("fill-mask", config(is_decoder=True), {}, UnsupportedModelError, "is_decoder is True"),
    "another activation": ("fill-mask", config(hidden_act="mish"), {}, UnsupportedModelError, "hidden_act is 'mish'"),
    "heads that do not divide": ("fill-mask", config(num_attention_heads=7), {}, CheckpointError, "a multiple of"),
    "another table of positions": (
        "fill-mask", config(max_position_embeddings=41), {}, TensorError, "position_embeddings.weight has shape [40",
    ),
    "for CUDA": ("fill-mask", config(), {"target": "cuda"}, ExportError, "run on the CPU only"),
    "a cache": ("fill-mask", config(), {"kv_cache": "int8"}, ExportError, "has no key/value cache"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_cannot_be_exported(name: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    task, damage, options, error, words = CHECKPOINTS[name]
    source = shutil.copytree(checkpoint("bert", task), tmp_path / "checkpoint")
    damage(source)
    with pytest.raises(error, match=re.escape(words)) as caught:
        edgellm_export.export(source, tmp_path / "package", **options)
    assert type(caught.value) is error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_the_default_labels_are_numbered(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint("bert", "text-classification"), tmp_path / "checkpoint")
    config(id2label=None, label2id=None)(source)
    exported = edgellm_export.export(source, tmp_path / "package", precision="fp32", verify_quality=False)
    assert exported.manifest.model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


INPUTS: dict[str, tuple[Callable[[Any], Any], type[EdgellmError], str]] = {
    "a text": (lambda m: m.run("Hi"), InputError, "expected a list of inputs, found str"),
    "nothing": (lambda m: m.run([]), InputError, "the list of inputs is empty"),
    "no tokens": (lambda m: m.run([[]]), InputError, "has no tokens"),
    "an unknown token": (lambda m: m.run([[5, 131]]), InputError, "token id 131, expected ids from 0 to 130"),
    "too long": (
        lambda m: m.run([[5], [5] * (CONTEXT + 1)]), ContextOverflowError,
        f"input 1 has {CONTEXT + 1} tokens, this model takes at most {CONTEXT}",
    ),
    "too long a cut": (
        lambda m: m.run([[5]], truncation="longest_first", max_length=99), OptionError, "max_length is 99, expected",
    ),
    "no embedding": (lambda m: m.embed(["a"]), TaskError, "says nothing of how to make one vector"),
    "no start": (lambda m: m.run([[5]])[0].start, TaskError, "gives no start_logits; it gives logits"),
    "a number": (lambda m: m.run([5]), InputError, "found int"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_are_refused(name: str, load: Callable[..., Any]) -> None:
    call, error, words = INPUTS[name]
    with pytest.raises(error, match=re.escape(words)) as caught:
        call(load("bert", "text-classification", "fp32"))
    assert type(caught.value) is error


def test_the_position_table_of_roberta_has_two_rows_more(load: Callable[..., Any]) -> None:
    model = load("roberta", "fill-mask", "fp32")
    assert model.manifest.context_length == CONTEXT - 2
    assert np.isfinite(model.run([[5] * (CONTEXT - 2)])[0].logits).all()
    with pytest.raises(ContextOverflowError):
        model.run([[5] * (CONTEXT - 1)])
    assert len(model.run([[5] * 60], truncation="longest_first")[0].encoding) == CONTEXT - 2


@pytest.mark.parametrize("command", ["generate", "chat", "bench"])
def test_a_package_for_another_task(command: str, load: Callable[..., Any]) -> None:
    path = load("bert", "text-classification", "fp32").info.path
    arguments = [command, str(path), *([] if command == "bench" else ["Hi"])]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 3
    assert "is a package for text-classification, and this needs one for text-generation" in result.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": None}, "needs encoder's facts"),
        ({"encoder": {"labels": [], "problem_type": None, "embedding": None}}, "0 labels in a package for text-class"),
        ({"encoder": {"labels": ["a", "b"], "problem_type": None, "embedding": None}}, "2 labels, 3 outputs"),
        ({"task": "text-generation"}, "needs a key/value cache"),
        ({"task": "question-answering"}, "3 labels in a package for question-answering"),
    ],
)
def test_manifests_that_do_not_fit(
    changes: dict[str, Any], words: str, load: Callable[..., Any], tmp_path: Path
) -> None:
    package = shutil.copytree(load("bert", "text-classification", "fp32").info.path, tmp_path / "package")
    manifest = read_manifest(package)
    data = {**manifest.to_dict(), **changes}
    (package / "edgellm.json").write_text(json.dumps(data))
    with pytest.raises(PackageCorruptError, match=re.escape(words)):
        edgellm.load(package)
    write_manifest(package, manifest)
    assert Manifest.from_dict(json.loads((package / "edgellm.json").read_text())) == manifest


def test_buckets_hold_inputs_of_like_length() -> None:
    lengths = [100, 3, 90, 88, 50, 49, 3, 200]
    found = list(buckets(lengths, 300, 10**9))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        longest = max(lengths[row] for row in rows)
        assert all(lengths[row] >= longest * 7 / 8 for row in rows)
        assert len(rows) == 1 or longest * len(rows) <= 300
    assert [0, 2, 3] in found
    assert [len(rows) for rows in buckets([10] * 5, 10**9, 25)] == [2, 2, 1]
