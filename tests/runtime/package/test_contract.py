"""edgellm.json and report.json: what is written is what is read, key by key, for every kind of model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import PackageCorruptError
from edgellm.package.manifest import (
    CacheLayout,
    ConvLayout,
    CrossCacheLayout,
    DecoderFacts,
    Embedding,
    EncoderDecoderFacts,
    EncoderFacts,
    FileEntry,
    GraphFile,
    Manifest,
    ModelFacts,
    Rope,
    StateLayout,
    Task,
    TokenIds,
    Weights,
    is_of,
)
from edgellm.package.report import (
    EncoderQuality,
    EncoderReport,
    EncoderThresholds,
    ExportOutcome,
    Foreseen,
    GenerationQuality,
    GenerationReport,
    GenerationThresholds,
    LayerReport,
    MatrixReport,
    Report,
    read_report,
    write_report,
)

KEYS = (
    "task", "model_type", "target", "graphs", "cache", "weights", "vocab_size", "context_length", "tokens", "rope",
    "source_length", "cross_cache", "encoder", "files", "source", "versions", "format_version",
)  # fmt: skip
CACHE = CacheLayout(2, 1, 4, "float32")
MODELS: dict[Task, ModelFacts] = {
    "text-generation": DecoderFacts(CACHE, Rope(has_length_input=True, recompute_beyond=32)),
    "text2text-generation": EncoderDecoderFacts(CACHE, CrossCacheLayout(2, 1, 4, "float32"), 64),
    "feature-extraction": EncoderFacts(embedding=Embedding("mean", True, 64)),
    "text-classification": EncoderFacts(("A", "B"), "regression", rows_apart=True),
}


def manifest(task: Task) -> Manifest:
    names = ("encoder", "decoder") if task == "text2text-generation" else ("model",)
    return Manifest(
        task=task,
        model_type="tiny",
        target="cpu",
        graphs={name: GraphFile(f"{name}.onnx", ("input_ids",), ("logits",)) for name in names},
        model=MODELS[task],
        weights=Weights("int8", "blockwise-64-symmetric", tied_embedding=True),
        vocab_size=40,
        context_length=64,
        tokens=TokenIds(1, (2, 3), 0),
        files={f"{name}.onnx": FileEntry(3, "0" * 64) for name in names},
        source={"kind": "gguf", "dtypes": ["F32"]},
        versions={"edgellm": "0"},
    )


@pytest.mark.parametrize("task", MODELS)
def test_a_manifest_survives_its_file(task: Task) -> None:
    made = manifest(task)
    data = json.loads(json.dumps(made.to_dict()))
    assert tuple(data) == KEYS
    assert Manifest.from_dict(data) == made
    assert [is_of(made, kind) for kind in (DecoderFacts, EncoderDecoderFacts, EncoderFacts)].count(True) == 1


def test_an_encoder_decoder_that_counts_by_row_survives_its_file() -> None:
    facts = MODELS["text2text-generation"]
    assert isinstance(facts, EncoderDecoderFacts)
    made = replace(manifest("text2text-generation"), model=replace(facts, counts_by_row=True))
    data = json.loads(json.dumps(made.to_dict()))
    assert Manifest.from_dict(data) == made
    assert data["counts_by_row"] is True, "of others it is not there: see KEYS"
    with pytest.raises(PackageCorruptError, match="counts_by_row belongs to encoder-decoders whose cache is written"):
        Manifest.from_dict(data | {"cache": data["cache"] | {"growth": "concat"}})
    with pytest.raises(PackageCorruptError, match="counts_by_row belongs to encoder-decoders"):
        Manifest.from_dict(manifest("text-generation").to_dict() | {"counts_by_row": True})


CONV = ConvLayout((1,), width=8, kernel=3, dtype="float32")


def test_a_cache_with_convolutions_survives_its_file() -> None:
    model = DecoderFacts(replace(CACHE, conv=CONV))
    made = replace(manifest("text-generation"), model=model)
    assert Manifest.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert [(each.ports[0][0], each.heads, each.size) for each in model.cache.tensors()] == [
        ("past_key_values.0.key", 1, 4), ("past_key_values.0.value", 1, 4), ("past_key_values.1.conv", 1, 8)
    ]  # fmt: skip
    assert {"conv", "values_are_keys"}.isdisjoint(manifest("text-generation").to_dict()["cache"])


def test_global_attention_survives_its_file() -> None:
    usual = manifest("text2text-generation")
    model = EncoderDecoderFacts(CACHE, CrossCacheLayout(2, 1, 4, "float32"), 64, "first")
    made = replace(usual, model=model)
    content = json.loads(json.dumps(made.to_dict()))
    assert Manifest.from_dict(content) == made
    assert content["global_attention"] == "first"
    assert "global_attention" not in usual.to_dict()
    with pytest.raises(PackageCorruptError, match="global_attention"):
        Manifest.from_dict(content | {"global_attention": "last"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv": {"layers": [0, 1]}}, "expected some of 2 layers"),
        ({"conv": {"layers": [1, 1]}}, "expected some of 2 layers"),
        ({"conv": {"layers": []}}, "expected some of 2 layers"),
        ({"conv": {"layers": [2]}}, "expected some of 2 layers"),
        ({"conv": {"layers": [-1]}}, "layers from 0 on"),
        ({"conv": {"width": 0}}, "cache.conv.width is 0"),
        ({"conv": {"kernel": 0}}, "cache.conv.kernel is 0"),
        ({"conv": {"kernel": 65}}, "cache.conv.kernel is 65"),
        ({"conv": {"dtype": "int8"}}, "dtype is 'int8'"),
        ({"growth": "concat"}, "written in place"),
    ],
)
def test_damaged_convolutions(change: dict[str, Any], message: str) -> None:
    data = replace(manifest("text-generation"), model=DecoderFacts(replace(CACHE, conv=CONV))).to_dict()
    conv = {**data["cache"]["conv"], **change.pop("conv", {})}
    data["cache"] = {**data["cache"], **change, "conv": conv}
    with pytest.raises(PackageCorruptError, match=message):
        Manifest.from_dict(json.loads(json.dumps(data)))


STATES = StateLayout((1,), width=10, kernel=4, num_heads=2, head_dim=4, state_size=3)


def test_states_survive_their_file() -> None:
    for layers in ((1,), (0, 1)):
        cache = replace(CACHE, states=replace(STATES, layers=layers))
        found = replace(manifest("text-generation"), model=DecoderFacts(cache))
        assert Manifest.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    names = [(tensor.ports[0][0], tensor.heads, tensor.slots, tensor.size) for tensor in cache.tensors()[:2]]
    assert names == [("past_key_values.0.conv", 1, 3, 10), ("past_key_values.0.ssm", 2, 4, 3)]
    assert "states" not in manifest("text-generation").to_dict()["cache"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": {"layers": [0, 2]}}, "some of 2 layers"),
        ({"states": {"layers": [1, 1]}}, "some of 2 layers"),
        ({"states": {"layers": []}}, "some of 2 layers"),
        ({"states": {"layers": [-1]}}, "some of 2 layers"),
        ({"states": {"width": 0}}, "expected positive sizes"),
        ({"states": {"kernel": 1}}, "expected positive sizes"),
        ({"states": {"state_size": -3}}, "expected positive sizes"),
        ({"growth": "concat"}, "written in place"),
        ({"conv": asdict(CONV)}, "not to one with conv"),
    ],
)
def test_damaged_states(change: dict[str, Any], message: str) -> None:
    data = replace(manifest("text-generation"), model=DecoderFacts(replace(CACHE, states=STATES))).to_dict()
    states = {**data["cache"]["states"], **change.pop("states", {})}
    data["cache"] = {**data["cache"], **change, "states": states}
    with pytest.raises(PackageCorruptError, match=message):
        Manifest.from_dict(json.loads(json.dumps(data)))


def test_an_encoder_decoder_has_all_its_parts() -> None:
    data = manifest("text2text-generation").to_dict()
    for lacking in ({**data, "cross_cache": None}, {**data, "graphs": {}}):
        with pytest.raises(PackageCorruptError, match="needs the graphs encoder and decoder and a cross_cache"):
            Manifest.from_dict(json.loads(json.dumps(lacking)))


OUTCOME = ExportOutcome(Foreseen(10, 9), Foreseen(100, None), Foreseen(1.5, 2.25))
QUALITY = GenerationQuality(
    tokens=9, text="English text", device="cpu", kl_divergence=0.01, kl_divergence_max=0.1, top1_agreement=1.0,
    perplexity_original=9.5, perplexity_package=9.75, greedy_tokens=4, greedy_agreement=0.5,
)  # fmt: skip
LAYERS = tuple(LayerReport(i, error, "decoder") for i, error in enumerate((0.1, 0.4, 0.2, 0.3)))
REPORTS: dict[str, Report] = {
    "generation": GenerationReport(
        precision="int8",
        scheme="blockwise-64-symmetric",
        cache="float32",
        calibration="4 tokens",
        size_bytes=123,
        quality=QUALITY,
        layers=LAYERS,
        matrices=(
            MatrixReport("/m", "8-bit blocks of 64", 0.01, 8, 64),
            MatrixReport("/head", "8-bit blocks of 32", None, 8, 32),
            MatrixReport("/old", "int8 x int8 per row", 0.01),
        ),
        thresholds=GenerationThresholds(0.02, 0.75),
        plan=OUTCOME,
    ),
    "encoder": EncoderReport(
        precision="fp32",
        scheme="float32",
        size_bytes=123,
        quality=EncoderQuality(3, 9, "English text", "cpu", "logits", 0.2, 0.999, 0.99, None),
        layers=(),
        thresholds=EncoderThresholds(0.15, 0.75),
    ),
}
REPORT_KEYS = {
    "generation": ["cache", "worst_layers", "verdict", "plan"],
    "encoder": ["worst_layers", "verdict"],
}


@pytest.mark.parametrize("kind", REPORTS)
def test_a_report_survives_its_file(kind: str, tmp_path: Path) -> None:
    report = REPORTS[kind]
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report
    data = json.loads((tmp_path / "report.json").read_text())
    usual = ["precision", "scheme", "calibration", "size_bytes", "quality", "layers", "matrices", "thresholds"]
    assert [key for key in data if key not in usual] == REPORT_KEYS[kind]
    assert [key for key in data if key in usual] == usual
    assert data["verdict"] == {"generation": "passed", "encoder": "failed"}[kind]
    assert data["worst_layers"] == [data["layers"][i] for i in (1, 3, 2) if data["layers"]]


def test_there_may_be_no_report(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": 1}, "quality: expected an object, found 1"),
        ({"layers": [{"layer": "0", "error": 0.1}]}, "layers: layer is '0', expected int"),
        ({"precision": "int3"}, "precision is 'int3'"),
        ({"size_bytes": None}, "size_bytes is None"),
        ({"more": 1}, "unknown more"),
    ],
)
def test_damaged_reports(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = {**REPORTS["generation"].to_dict(), **change}
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(PackageCorruptError, match=rf"report\.json cannot be read \(.*{message}.*export the package"):
        read_report(tmp_path)


def test_quality_at_its_limit_passes() -> None:
    report = replace(REPORTS["generation"], quality=replace(QUALITY, kl_divergence=0.02, top1_agreement=0.75))
    assert report.passed
    assert not replace(report, quality=replace(QUALITY, kl_divergence=0.0201)).passed
