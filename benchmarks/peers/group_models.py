"""Random weights in a model's shape, saved by transformers: `group_models.py KIND OUT SIZES`, SIZES being JSON.

KIND is "whisper", with a tokenizer of bytes that has Whisper's special tokens at their places, or "modernbert", a
sentence encoder of the mean with a tokenizer of letters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers as hf
from tokenizers import models, pre_tokenizers

TEXT, LANGUAGES, TIMESTAMPS = 50257, 99, 1501  # tokens of the multilingual Whisper
END, BEGIN = TEXT, TEXT + 1
ENGLISH, AFTER = BEGIN + 1, BEGIN + 1 + LANGUAGES
TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")


def whisper(out: Path, sizes: Mapping[str, Any]) -> None:
    ids = {"pad_token_id": END, "bos_token_id": END, "eos_token_id": END, "decoder_start_token_id": BEGIN}
    unsaid = {"suppress_tokens": None, "begin_suppress_tokens": None}
    size = AFTER + len(TASKS) + TIMESTAMPS
    model = hf.WhisperForConditionalGeneration(hf.WhisperConfig(vocab_size=size, **ids, **unsaid, **sizes))
    places = {name: AFTER + i for i, name in enumerate(TASKS)}
    model.generation_config = hf.GenerationConfig(
        **ids, max_length=448, is_multilingual=True, lang_to_id={"<|en|>": ENGLISH},
        task_to_id={name: places[name] for name in ("translate", "transcribe")},
        no_timestamps_token_id=places["notimestamps"], prev_sot_token_id=places["startofprev"],
        alignment_heads=[[0, 0]], suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model.save_pretrained(out)
    _whisper_tokenizer().save_pretrained(out)
    hf.WhisperFeatureExtractor().save_pretrained(out)


def _whisper_tokenizer() -> hf.WhisperTokenizerFast:
    """Text of bytes; the other tokens of text are there, and never made."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    fillers = (f"\u0120{i}" for i in range(TEXT - len(letters)))
    made = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate([*letters, *fillers])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    languages = ["en", *(f"l{i}" for i in range(1, LANGUAGES))]
    names = [f"<|{name}|>" for name in ("endoftext", "startoftranscript", *languages, *TASKS)]
    made.add_special_tokens(names)
    times = [tokenizers.AddedToken(f"<|{i * 0.02:.2f}|>", special=False) for i in range(TIMESTAMPS)]
    made.add_tokens(times)
    known = {"bos_token": names[0], "eos_token": names[0], "unk_token": names[0], "pad_token": names[0]}
    return hf.WhisperTokenizerFast(tokenizer_object=made, additional_special_tokens=names[1:], **known)


def modernbert(out: Path, sizes: Mapping[str, Any]) -> None:
    hf.ModernBertModel(hf.ModernBertConfig(**sizes)).save_pretrained(out)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="!", unk_token="!").save_pretrained(out)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(steps)
    ]
    (out / "modules.json").write_text(json.dumps(modules))
    (out / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": sizes["hidden_size"], "pooling_mode_mean_tokens": True}
    (out / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (out / "2_Normalize").mkdir(exist_ok=True)


if __name__ == "__main__":
    kind, path, given = sys.argv[1:]
    torch.manual_seed(0)
    {"whisper": whisper, "modernbert": modernbert}[kind](Path(path), json.loads(given))
