"""A tiny Whisper with windows of a second, made by transformers, which is also the reference."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers as hf

import edgellm_export

SPECIAL = ("endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startoflm", "startofprev",
           "nospeech", "notimestamps")  # fmt: skip
TEXT, STEPS = 90, 51  # tokens of text, and timestamps
EOS, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, _, PREVIOUS, NO_SPEECH, NO_TIMESTAMPS = range(TEXT, TEXT + 10)
FIRST = NO_TIMESTAMPS + 1
VOCABULARY = FIRST + STEPS
RATE, FRAMES = 16000, 100
# Of logits: for each later timestamp, of all of them, and of the end.
SLOPE, LATE, ENDS = 0.03, 2.2, 1.6

Shared = Callable[[str, Callable[[Path], Any]], Path]  # the fixture `shared`

MANY_LANGUAGES: dict[str, Any] = {
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": ENGLISH, "<|de|>": GERMAN},
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSCRIBE},
    "prev_sot_token_id": PREVIOUS,
    "max_initial_timestamp_index": 20,
    "suppress_tokens": [1, 2, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, 96, PREVIOUS, NO_SPEECH],
    "begin_suppress_tokens": [5, EOS],
}
ENGLISH_ONLY: dict[str, Any] = {
    "is_multilingual": False,
    "forced_decoder_ids": [[1, NO_TIMESTAMPS]],
    "suppress_tokens": [START, PREVIOUS, NO_SPEECH],
    "begin_suppress_tokens": [EOS],
}
OLDER: dict[str, Any] = {
    **MANY_LANGUAGES,
    "forced_decoder_ids": [[1, None], [2, TRANSCRIBE]],
    "prev_sot_token_id": None,
}
KINDS = {"many": MANY_LANGUAGES, "english": ENGLISH_ONLY, "older": OLDER}


def make_model(kind: str = "many", **config: Any) -> Any:
    """The seeded torch model in float32, eager. Norms and biases are random too: 1 and 0 would hide mistakes."""
    torch.manual_seed(7)
    ids = {"pad_token_id": EOS, "bos_token_id": EOS, "eos_token_id": EOS, "decoder_start_token_id": START}
    sizes = {"d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 88, "decoder_ffn_dim": 72}
    heads = {"encoder_attention_heads": 3, "decoder_attention_heads": 6, "max_source_positions": FRAMES // 2}
    unsaid = {"suppress_tokens": None, "begin_suppress_tokens": None}
    settings = {"vocab_size": VOCABULARY, "max_target_positions": 64, **ids, **sizes, **heads, **unsaid, **config}
    model = hf.WhisperForConditionalGeneration(hf.WhisperConfig(**settings, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
            if "encoder_attn" in name and parameter.ndim == 2:  # what is heard decides
                parameter.mul_(2.5)
            if "embed_positions" in name:  # no token twice
                parameter.mul_(5)
        usual = model.model.decoder.layer_norm.bias / model.model.decoder.layer_norm.bias.square().sum()
        model.proj_out.weight[FIRST:] += (SLOPE * torch.arange(STEPS)[:, None] - LATE) * usual  # windows move on
        model.proj_out.weight[EOS] += ENDS * usual
    model.generation_config = hf.GenerationConfig(
        **ids, max_length=24, no_timestamps_token_id=NO_TIMESTAMPS, alignment_heads=[[0, 1], [1, 0], [1, 3]],
        **KINDS[kind],
    )  # fmt: skip
    return model


def make_tokenizer() -> Any:
    """A character each, and the special tokens of Whisper's."""
    characters = [chr(code) for code in range(33, 33 + TEXT - 1)] + ["\u0120"]
    model = tokenizers.models.BPE(vocab={character: i for i, character in enumerate(characters)}, merges=[])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    names = [f"<|{name}|>" for name in SPECIAL]
    tokenizer.add_special_tokens(names)
    tokenizer.add_tokens([tokenizers.AddedToken(f"<|{i * 0.02:.2f}|>", special=False) for i in range(STEPS)])
    known = {"bos_token": names[0], "eos_token": names[0], "unk_token": names[0], "pad_token": names[0]}
    return hf.WhisperTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=names[1:], **known)


def extractor() -> Any:
    return hf.WhisperFeatureExtractor(feature_size=80, chunk_length=FRAMES // 100)


def save_checkpoint(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    extractor().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


def checkpoint(kind: str, shared: Shared) -> Path:
    return shared(f"checkpoints/whisper-{kind}", lambda path: save_checkpoint(make_model(kind), path))


def package(kind: str, precision: Any, shared: Shared) -> Path:
    options: dict[str, Any] = {"precision": precision, "verify_quality": False}
    return shared(
        f"packages/whisper-{kind}-{precision}",
        lambda path: edgellm_export.export(checkpoint(kind, shared), path, **options),
    )


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """[samples] float32: tones that come and go over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    tones = sum(
        np.sin(2 * np.pi * rng.uniform(100, 4000) * time) * (np.sin(2 * np.pi * rng.uniform(0.5, 4) * time) > 0)
        for _ in range(4)
    )
    return (0.1 * tones + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    """A file of 16 bits."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return made.getvalue()


def features_of(samples: np.ndarray) -> torch.Tensor:
    """[1, 80, frames] of transformers, at least a window."""
    long = len(samples) > RATE * FRAMES // 100
    given = {"truncation": False, "padding": "longest"} if long else {}
    return extractor()(samples, sampling_rate=RATE, return_tensors="pt", **given).input_features


@torch.no_grad()
def hf_transcribe(model: Any, samples: np.ndarray, **options: Any) -> Any:
    """The segments of transformers."""
    out = model.generate(features_of(samples), return_segments=True, **options)
    return out["segments"][0]
