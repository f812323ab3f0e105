"""Directories without tokenizer.json: it is built from SentencePiece or vocab and merges files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from transformers import LlamaTokenizer

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import BYTES

SHORT = ["Hello world", " two  spaces", "", "caf\u00e9 \u4f60\u597d \U0001f600", "x\ny\tz"]
TEXTS = [*SHORT, *topics["for"].split("\n")]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"w": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def put(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def train(path: Path, **options: Any) -> None:
    lines = [line for name in sorted(topics)[:20] for line in topics[name].split("\n") if line.strip()]
    model = io.BytesIO()
    defaults: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 800,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **(defaults | options))
    path.write_bytes(model.getvalue())


def built(directory: Path) -> Tokenizer:
    return Tokenizer.from_buffer(open_checkpoint(str(directory)).files["tokenizer.json"])


def test_sentencepiece_bpe_gives_the_tokens_of_sentencepiece(directory: Path) -> None:
    train(directory / "tokenizer.model")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    tokenizer = built(directory)
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text), text
        assert tokenizer.decode(reference.encode(text)) == text


def test_added_tokens_and_flags_are_those_of_transformers(directory: Path) -> None:
    train(directory / "tokenizer.model")
    added = {"800": {"content": "<|im_end|>", "special": True}, "801": {"content": "<tool>", "special": False}}
    config = {"added_tokens_decoder": added, "add_bos_token": True, "add_eos_token": True}
    put(directory / "tokenizer_config.json", config)
    reference = LlamaTokenizer(str(directory / "tokenizer.model"), legacy=True, add_eos_token=True)
    reference.add_tokens(["<|im_end|>"], special_tokens=True)
    reference.add_tokens(["<tool>"])
    tokenizer = built(directory)
    for text in ("Hello world", "a<|im_end|>b", "x<tool>y"):
        assert tokenizer.encode(text).ids == reference(text).input_ids, text


def test_vocab_and_merges(directory: Path) -> None:
    vocab = {token: index for index, token in enumerate([*BYTES, "th", "the", "<|endoftext|>"])}
    put(directory / "vocab.json", vocab)
    (directory / "merges.txt").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    decoder = {"258": {"content": "<|endoftext|>", "special": True}}
    put(directory / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": decoder})
    assert built(directory).encode("the<|endoftext|>").ids == [257, 258]
    put(directory / "tokenizer_config.json", {"tokenizer_class": "OtherTokenizer"})
    with pytest.raises(UnsupportedModelError, match=r"has vocab.json, merges.txt but no .* built of tokenizer.model"):
        built(directory)


def test_without_any_tokenizer_there_is_none(directory: Path) -> None:
    assert "tokenizer.json" not in open_checkpoint(str(directory)).files


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram", "vocab_size": 500},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {"user_defined_symbols": "<|turn|>,the cat"},
        {"add_dummy_prefix": False},
    ],
    ids=str,
)
def test_a_model_without_a_class_of_its_own_is_cut_as_sentencepiece_cuts(
    options: dict[str, Any], directory: Path
) -> None:
    train(directory / "tokenizer.model", **options)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    tokenizer = built(directory)
    for text in [*TEXTS, "a <|turn|>b the cat"]:
        assert tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text), text


def test_damaged_models_are_refused(directory: Path) -> None:
    (directory / "tokenizer.model").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(CheckpointError, match="damaged or not a SentencePiece model"):
        built(directory)


@pytest.mark.parametrize("decoder", [{"x": {}}, {"5": 1}, [1]])
def test_unusable_added_tokens_are_refused(directory: Path, decoder: Any) -> None:
    train(directory / "tokenizer.model")
    put(directory / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    with pytest.raises(CheckpointError, match="added token"):
        built(directory)
