"""The first lines that people write, on a tiny GPT-2 with a trained BPE tokenizer."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import edgellm
import edgellm_export
from families import Family, make_model

TEXT = "The quick brown fox jumps over the lazy dog"
END = "<|endoftext|>"
SIZES = {"vocab_size": 400, "n_embd": 48, "n_layer": 2, "n_head": 3, "n_positions": 64}


def english_bpe(vocab_size: int) -> Tokenizer:
    """As GPT-2 has it: byte-level, one special token, which begins and ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    tokenizer.train_from_iterator([pydoc_data.topics.topics["execmodel"]], trainer)
    return tokenizer


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, Any]:
    """The reference: model and tokenizer."""
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model = make_model(Family("gpt2-text", lambda: hf.GPT2Config(**SIZES, **ids)))
    bpe = english_bpe(SIZES["vocab_size"])
    names = ["input_ids", "attention_mask"]
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END, model_input_names=names)
    return model, fast


@pytest.fixture(scope="module")
def model(theirs: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> edgellm.Model:
    """Saved and exported as a user would, tokenizer files and all."""
    directory: Path = tmp_path_factory.mktemp("gpt2")
    for part in theirs:
        part.save_pretrained(directory / "checkpoint")
    exported = edgellm_export.export(directory / "checkpoint", directory / "package", precision="fp32")
    return edgellm.load(exported.path, device="cpu", threads=1)


def test_beam_search_without_repetition(theirs: tuple[Any, Any], model: edgellm.Model) -> None:
    torch_model, tokenizer = theirs
    options = {"max_length": 50, "num_beams": 5, "no_repeat_ngram_size": 2}
    inputs = tokenizer(TEXT, return_tensors="pt")
    expected = torch_model.generate(**inputs, **options)[0][inputs["input_ids"].shape[1] :].tolist()
    found = model.generate(TEXT, **options)
    assert list(found.tokens) == expected
    assert found.text == tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert found.prompt_tokens + len(found.tokens) == 50
    bigrams = list(zip(found.tokens, found.tokens[1:], strict=False))
    assert len(bigrams) == len(set(bigrams))


def test_three_samples(model: edgellm.Model) -> None:
    options = {"do_sample": True, "num_return_sequences": 3, "top_k": 50, "top_p": 0.95, "max_length": 50}
    found = model.generate(TEXT, seed=7, **options)
    texts = [sequence.text for sequence in found.sequences]
    assert len(set(texts)) == 3
    assert model.generate(TEXT, seed=7, **options).sequences == found.sequences
    assert model.generate(TEXT, seed=8, **options).sequences != found.sequences
    first = model.generate(TEXT, seed=7, **{**options, "num_return_sequences": 1})
    assert first.sequences == found.sequences[:1], "a sequence does not depend on how many are drawn beside it"


def test_the_stream_is_the_text(model: edgellm.Model) -> None:
    pieces = list(model.stream(TEXT, max_length=50))
    found = model.generate(TEXT, max_length=50)
    assert "".join(piece.text for piece in pieces) == found.text
    assert tuple(token for piece in pieces for token in piece.tokens) == found.tokens
    assert pieces[-1].finish_reason == found.finish_reason
