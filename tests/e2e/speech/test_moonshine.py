"""Moonshine packages beside transformers on the same weights."""

from __future__ import annotations

import io
import json
import shutil
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers as hf

import edgellm
import edgellm_export
from conftest_of_server import Server
from edgellm.errors import UnsupportedModelError
from edgellm.ort.kernels import library
from edgellm.package.report import read_report
from edgellm.server import ServerSettings
from row_driver import assert_exact_however_they_came
from speech_checkpoints import Shared, sound, wav

START, EOS = 1, 2
TEXT = 60
VARIED = {"no_repeat_ngram_size": 2}  # random models repeat themselves
# Of logits, root mean square over root mean square. transformers in float32 is up to 1e-6 from itself in float64.
PRECISIONS = {"fp32": 4e-6, "fp16": 4e-3, "int8": 0.1}
# By name: 20 channels of a head, of which 18 rotate; all; a bias, and a head of its own.
KINDS: dict[str, dict[str, Any]] = {
    "part": {"hidden_size": 80},
    "whole": {"hidden_size": 64, "partial_rotary_factor": 1.0, "encoder_num_hidden_layers": 1},
    "biased": {"hidden_size": 64, "attention_bias": True, "tie_word_embeddings": False},
}


def make_model(kind: str) -> Any:
    torch.manual_seed(5)
    sizes = {
        "vocab_size": TEXT,
        "intermediate_size": 72,
        "encoder_num_hidden_layers": 2,
        "decoder_num_hidden_layers": 3,
    }
    heads = {"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "max_position_embeddings": 48}
    config = hf.MoonshineConfig(**{**sizes, **heads, **KINDS[kind]}, pad_head_dim_to_multiple_of=8, pad_token_id=EOS)
    config._attn_implementation = "eager"
    model = hf.MoonshineForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
            if "encoder_attn" in name and parameter.ndim == 2:
                parameter.mul_(1.5)
            if "embed_tokens" in name:  # what was written last does not decide alone
                parameter.mul_(0.4)
            if "conv" in name and parameter.ndim == 3:
                parameter.mul_(0.5)
    model.generation_config.max_length = 30
    return model


def make_tokenizer() -> Any:
    """A character each."""
    words = ["<unk>", "<s>", "</s>", "\u2581", *string.ascii_letters, *".,'-"]
    model = tokenizers.models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[], unk_token="<unk>")
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    made.decoder = tokenizers.decoders.Sequence([
        tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.Fuse(), tokenizers.decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    made.add_special_tokens(words[:3])
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def extractor() -> Any:
    return hf.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


def save_checkpoint(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    extractor().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def reference() -> Callable[[str], Any]:
    return cache(make_model)


@pytest.fixture(scope="module")
def checkpoint(shared: Shared) -> Callable[[str], Path]:
    return lambda kind: shared(f"checkpoints/moonshine-{kind}", lambda path: save_checkpoint(make_model(kind), path))


@pytest.fixture(scope="module")
def package(checkpoint: Callable[[str], Path], shared: Shared) -> Callable[..., Path]:
    def made(kind: str = "part", precision: Any = "fp32") -> Path:
        return shared(
            f"packages/moonshine-{kind}-{precision}",
            lambda path: edgellm_export.export(checkpoint(kind), path, precision=precision, verify_quality=False),
        )

    return made


@pytest.fixture(scope="module")
def load(package: Callable[..., Path]) -> Callable[..., edgellm.SpeechModel]:
    def opened(kind: str = "part", precision: Any = "fp32") -> edgellm.SpeechModel:
        model = edgellm.load(package(kind, precision), threads=1)
        assert isinstance(model, edgellm.SpeechModel)
        return model

    return cache(opened)


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_came_at_different_times(kind: str, load: Any) -> None:
    recordings = [sound(seconds)[None] for seconds in (0.9, 0.3, 1.6)]
    assert_exact_however_they_came(load(kind, "int8")._new_engine, [START, 10, 11], recordings)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str, precision: str, load: Any, reference: Callable[[str], Any]) -> None:
    for seconds in (0.2, 2.3):
        samples, target = sound(seconds), np.array([START, *range(10, 40)])
        given = {"input_values": torch.tensor(samples[None]), "decoder_input_ids": torch.tensor(target[None])}
        with torch.no_grad():
            expected = reference(kind)(**given).logits[0].numpy()
        found = load(kind, precision).logits(samples[None], target)
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < PRECISIONS[precision]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0.3, 1.0, 4.1])
@pytest.mark.parametrize("options", [{}, VARIED, {"num_beams": 3, **VARIED}, {"max_new_tokens": 7}])
def test_tokens(kind: str, seconds: float, options: dict[str, Any], load: Any, reference: Callable[[str], Any]) -> None:
    samples = sound(seconds, seed=3)
    expected = reference(kind).generate(torch.tensor(samples[None]), **options)[0].tolist()
    found = load(kind).transcribe(samples, **options)
    assert [START, *found.tokens] == [token for token in expected if token != EOS]
    assert len(set(found.tokens)) > 1 or options not in (VARIED, {"num_beams": 3, **VARIED})
    (segment,) = found.segments
    assert (segment.start, segment.end) == (0.0, pytest.approx(seconds, abs=1e-3))


def test_the_pipeline(load: Any, reference: Callable[[str], Any]) -> None:
    parts = {"tokenizer": make_tokenizer(), "feature_extractor": extractor()}
    theirs = hf.pipeline("automatic-speech-recognition", model=reference("part"), **parts)
    recording = {"array": sound(1.3, seed=2), "sampling_rate": 16000}
    ours = edgellm.pipeline("automatic-speech-recognition", load())
    for options in ({"max_new_tokens": 12, **VARIED}, {"max_new_tokens": 20, "num_beams": 1, **VARIED}):
        found = ours(recording, generate_kwargs=options)
        assert found == theirs(dict(recording), generate_kwargs=options)
        assert len({*found["text"]}) > 4


def test_the_server(load: Any, package: Callable[..., Path]) -> None:
    file = {"file": ("one.wav", wav(sound(1.1)))}
    with Server({"moonshine": package()}, ServerSettings(threads=1)) as server:
        found = server.http.post("/v1/audio/transcriptions", files=file)
        assert found.json()["text"] == load().transcribe(io.BytesIO(wav(sound(1.1)))).text.strip()
        refused = server.http.post("/v1/audio/transcriptions", files=file, data={"response_format": "srt"})
        assert (refused.status_code, "no_timestamps_token_id" in refused.text) == (400, True)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_an_export_is_compared_with_the_original(
    precision: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    exported = edgellm_export.export(checkpoint("part"), tmp_path / "out", precision=precision, keep_failed=True)
    report = read_report(exported.path)
    assert report is not None
    layers = [(layer.part, layer.layer) for layer in report.layers]
    assert layers == [("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1), ("decoder", 2)]
    assert (max(layer.error for layer in report.layers) < 1e-5) == (precision == "fp32")
    assert report.passed


def test_what_it_does_not_have(load: Any) -> None:
    for options, message in (
        ({"return_timestamps": True}, "names no no_timestamps_token_id"),
        ({"return_timestamps": "word"}, "names no"),
        ({"language": "en"}, "language is 'en', which this model does not know"),
        ({"task": "translate"}, "task is 'translate'"),
        ({"prompt": [5]}, "takes no prompt"),
    ):
        with pytest.raises(edgellm.OptionError, match=message):
            load().transcribe(sound(0.5), **options)
    with pytest.raises(edgellm.InputError, match="1, 895 or more"):
        load().transcribe_features(np.zeros((1, 100), np.float32))
    with pytest.raises(edgellm.InputError, match="65 seconds long, and this model reads at most 64 at a time"):
        load().transcribe(np.zeros(65 * 16000, np.float32))
    assert load().transcribe(np.zeros(100, np.float32)).segments, "filled up"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("preprocessor_config.json", {"do_normalize": True}, "do_normalize is True"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate is 8000"),
        ("config.json", {"decoder_num_key_value_heads": 2}, "decoder_num_key_value_heads is 2"),
        ("config.json", {"partial_rotary_factor": 0.85}, "17 channels of a head"),
        ("config.json", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "'linear'"),
    ],
)
def test_what_is_refused(
    name: str, values: dict[str, Any], message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint("part"), tmp_path / "changed")
    content = json.loads((source / name).read_text())
    content.pop("rope_parameters", None)
    (source / name).write_text(json.dumps(content | values))
    with pytest.raises(UnsupportedModelError, match=message):
        edgellm_export.export(source, tmp_path / "out")
