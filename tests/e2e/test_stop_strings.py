"""Stop strings beside transformers: what ends a text, special tokens included, and what comes back."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RawTokenizer
from transformers.generation.stopping_criteria import StopStringCriteria

import edgellm
import edgellm_export
from edgellm.text.tokenizer import Tokenizer, stop_string_matcher

SPECIAL = ["<|im_end|>", "<|im_start|>", "</s>"]
PIECES = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "ab",
    "bc",
    "abc",
    " a",
    " ab",
    "ca",
    "\n",
    "<",
    "/",
    "s",
    ">",
    "</",
    "s>",
    "|",
    "im",
    "end",
]
STOPS = ["ab", "abc", "bca", "\n", "a\n", "</s>", "<|im_end|>", "c<|im_end|>", "|>\n", "aba", " a", "<|im_start|>a"]


def byte_pairs() -> RawTokenizer:
    letters = {piece: "".join(text for text, _ in pre_tokenizers.ByteLevel(False).pre_tokenize_str(piece)) or piece
               for piece in PIECES}  # fmt: skip
    tokenizer = RawTokenizer(models.BPE({text: i for i, text in enumerate(dict.fromkeys(letters.values()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return tokenizer


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_string_ends_a_text_where_it_does_in_transformers(stop: str) -> None:
    raw = byte_pairs()
    criteria = StopStringCriteria(hf.PreTrainedTokenizerFast(tokenizer_object=raw), [stop])
    matches = stop_string_matcher(Tokenizer(byte_pairs()), [stop])
    assert matches is not None
    rng, size = random.Random(0), raw.get_vocab_size()
    found = set()
    for _ in range(400):
        tokens = [rng.randrange(size) for _ in range(rng.randrange(1, 6))]
        if rng.random() < 0.3:  # the stop string itself, with something behind it or not
            tokens += raw.encode(stop).ids + tokens[: rng.randrange(2)]
        expected = bool(criteria(torch.tensor([tokens]), None))
        assert matches(np.array(tokens)) == expected, raw.decode(tokens, skip_special_tokens=False)
        found.add(expected)
    assert found == {True, False}


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A model that writes <|im_end|>, which no config calls an end: model, tokenizer and checkpoint."""
    path = tmp_path_factory.mktemp("chatting") / "checkpoint"
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=byte_pairs(), eos_token="</s>")
    torch.manual_seed(5)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.25) if parameter.ndim > 1 else parameter.fill_(1)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model, tokenizer, path


def reference(chatting: tuple[Any, Any, Path], prompt: str, **options: Any) -> list[int]:
    model, tokenizer, _ = chatting
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        ids = model.generate(**inputs, tokenizer=tokenizer, max_new_tokens=24, do_sample=False, **options)
    return [int(token) for token in ids[0, inputs["input_ids"].shape[1] :]]


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_and_streams_end_at_special_tokens(
    chatting: tuple[Any, Any, Path], beams: int, tmp_path: Path
) -> None:
    _, tokenizer, source = chatting
    model = edgellm.load(edgellm_export.export(source, tmp_path / "package", precision="fp32").path, threads=1)
    assert isinstance(model, edgellm.Model)
    ended = 0
    for prompt in ("abc", "a b", "ca\n", "s> end", "|im", "<|im_start|>a"):
        free = reference(chatting, prompt, num_beams=beams)
        stops = [tokenizer.decode([token]) for token in free if token in tokenizer.all_special_ids] or ["<|im_end|>"]
        wanted = reference(chatting, prompt, stop_strings=stops, num_beams=beams)
        found = model.generate(prompt, max_new_tokens=24, do_sample=False, stop_strings=stops, num_beams=beams)
        assert list(found.tokens) == wanted
        assert found.text == tokenizer.decode(wanted, skip_special_tokens=True)
        ended += found.finish_reason == "stop_string"
        if beams == 1:
            pieces = list(model.stream(prompt, max_new_tokens=24, do_sample=False, stop_strings=stops))
            assert "".join(map(str, pieces)) == found.text
            assert pieces[-1].finish_reason == found.finish_reason
    assert ended


def test_stop_strings_of_generation_config(chatting: tuple[Any, Any, Path], tmp_path: Path) -> None:
    source = shutil.copytree(chatting[2], tmp_path / "checkpoint")
    config = source / "generation_config.json"
    free = reference(chatting, "abc")
    stop = chatting[1].decode([free[2]])
    for given in (stop, [stop, "never"]):
        config.write_text(json.dumps({**json.loads(config.read_text()), "stop_strings": given}))
        package = edgellm_export.export(source, tmp_path / "package", precision="fp32", force=True).path
        model = edgellm.load(package, threads=1)
        assert isinstance(model, edgellm.Model)
        wanted = reference(chatting, "abc", stop_strings=given)
        assert list(model.generate("abc", max_new_tokens=24, do_sample=False).tokens) == wanted
        assert len(wanted) < len(free)
        assert list(model.generate("abc", max_new_tokens=24, do_sample=False, stop_strings=None).tokens) == free
