"""tokenizer.json against the files beside it: which class reads them, and what it takes from each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.text.tokenizer import open_tokenizer
from edgellm_export.tokenizer.classes import AS_IT_IS, class_name
from edgellm_export.tokenizer.files import read_text_files
from edgellm_export.tokenizer.settings import read_settings

Write = Callable[..., Path]
END = "<|endoftext|>"
TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def bert() -> Tokenizer:
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "cat",
        "Cat",
        "cafe",
        "caf",
        "##é",
        "中",
        "国",
        "中国",
        "new",
        "<",
        ">",
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(pieces[:5])
    return tokenizer


def byte_pairs() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate([*alphabet, END])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(tokenizer: Tokenizer, model_type: str, *, files: Mapping[str, Any] = {}, **config: Any) -> Path:
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        every = {"config.json": {"model_type": model_type}, "tokenizer_config.json": config, **files}
        for name, content in every.items():
            (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return write


def tokens_of(path: Path, text: str) -> list[str]:
    tokenizer = Tokenizer.from_buffer(read_text_files(path)["tokenizer.json"])
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "Cat Café", ["cat", "cafe"]),
        ({"do_lower_case": False}, "Cat", ["Cat"]),
        ({"strip_accents": False}, "Café", ["caf", "##é"]),
        ({"do_lower_case": False, "strip_accents": True}, "café", ["cafe"]),
        ({}, "中国", ["中", "国"]),
        ({"tokenize_chinese_chars": False}, "中国", ["中国"]),
    ],
)
def test_options_that_only_tokenizer_config_has(
    options: dict[str, Any], text: str, expected: list[str], write: Write
) -> None:
    assert tokens_of(write(bert(), "bert", **options), text) == expected
    as_it_is = write(bert(), "bert", tokenizer_class="PreTrainedTokenizerFast", **options)
    assert tokens_of(as_it_is, "Cat") == ["cat"]


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"eos_token": "<new>"}, {}),
        ({"image_token": "<new>"}, {}),
        ({"image_token": {"content": "<new>", "__type": "AddedToken"}}, {}),
        ({"model_specific_special_tokens": {"image_token": "<new>"}}, {}),
        ({"additional_special_tokens": ["<new>"]}, {}),
        ({"extra_special_tokens": ["<new>"]}, {}),
        ({"extra_special_tokens": {"image_token": "<new>"}}, {}),
        ({"added_tokens_decoder": {"257": {"content": "<new>", **TOKEN}}}, {}),
        ({}, {"special_tokens_map.json": {"pad_token": "<new>"}}),
        ({}, {"special_tokens_map.json": {"pad_token": {"content": "<new>", **TOKEN}}}),
        ({}, {"special_tokens_map.json": {"additional_special_tokens": ["<new>"]}}),
        ({"eos_token": "<new>"}, {"added_tokens.json": {"<new>": 257}}),
    ],
    ids=str,
)
def test_a_special_token_that_tokenizer_json_lacks(config: dict[str, Any], files: dict[str, Any], write: Write) -> None:
    path = write(byte_pairs(), "gpt2", files=files, **config)
    assert tokens_of(path, "a<new>b") == ["a", "<new>", "b"]
    for name, content in read_text_files(path).items():
        (path / name).write_bytes(content)
    tokenizer = open_tokenizer(path)
    assert tokenizer is not None
    assert tokenizer.id_of("<new>") == 257
    assert tokenizer.decode(tokenizer.encode("a<new>b").tolist()) == "ab"


@pytest.mark.parametrize(
    "config",
    [
        {"image_token": {"content": "<new>"}},
        {"audio_token": "a", "model_specific_special_tokens": {"image_token": "<new>"}},
    ],
)
def test_a_token_that_transformers_does_not_see(config: dict[str, Any], write: Write) -> None:
    assert tokens_of(write(byte_pairs(), "gpt2", **config), "<new>") == [*"<new>"]


def test_a_token_that_added_tokens_json_alone_has_is_text(write: Write) -> None:
    path = write(byte_pairs(), "gpt2", files={"added_tokens.json": {"<new>": 257}})
    added = json.loads(read_text_files(path)["tokenizer.json"])["added_tokens"]
    assert [(token["content"], token["special"]) for token in added] == [(END, True), ("<new>", False)]


def test_the_packages_config_names_the_special_tokens_wherever_they_were_said(write: Write) -> None:
    path = write(bert(), "bert", files={"special_tokens_map.json": {"mask_token": "cat"}}, sep_token="[SEP]")
    config = json.loads(read_text_files(path)["tokenizer_config.json"])
    assert (config["mask_token"], config["cls_token"], config["sep_token"]) == ("cat", "[CLS]", "[SEP]")


def test_special_tokens_of_another_name_are_put_around_a_text(write: Write) -> None:
    path = write(bert(), "bert", cls_token="new", sep_token="cat")
    found = Tokenizer.from_buffer(read_text_files(path)["tokenizer.json"])
    assert found.encode("cafe", "cafe").tokens == ["new", "cafe", "cat", "cafe", "cat"]
    assert found.encode("cafe", "cafe").type_ids == [0, 0, 0, 1, 1]


def test_types_are_zero_where_the_model_is_given_none(write: Write) -> None:
    path = write(bert(), "bert", model_input_names=["input_ids", "attention_mask"])
    assert set(Tokenizer.from_buffer(read_text_files(path)["tokenizer.json"]).encode("cat", "cafe").type_ids) == {0}


def test_types_are_zero_in_a_sequence_of_steps(write: Write) -> None:
    tokenizer = bert()
    ends = processors.TemplateProcessing(single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 3)])
    tokenizer.post_processor = processors.Sequence([ends])
    path = write(tokenizer, "bert", tokenizer_class="PreTrainedTokenizerFast")
    encoding = Tokenizer.from_buffer(read_text_files(path)["tokenizer.json"]).encode("cat", "cafe")
    assert (encoding.tokens, encoding.type_ids) == (["cat", "[SEP]", "cafe", "[SEP]"], [0, 0, 0, 0])


@pytest.mark.parametrize(
    ("side", "config", "expected"),
    [
        ("left", {}, "left"),
        ("right", {}, "right"),
        ("left", {"truncation_side": "right"}, "right"),
        ("right", {"tokenizer_truncation": {"direction": "left"}}, "right"),
        ("right", {"tokenizer_truncation": {"direction": "left"}, "tokenizer_class": "TokenizersBackend"}, "left"),
    ],
)
def test_the_side_at_which_tokenizer_json_cuts_is_the_usual_one(
    side: str, config: dict[str, Any], expected: str, write: Write
) -> None:
    tokenizer = bert()
    tokenizer.enable_truncation(2, direction=side)
    path = write(tokenizer, "bert", **config)
    for name, content in read_text_files(path).items():
        (path / name).write_bytes(content)
    found = open_tokenizer(path)
    assert found is not None
    assert found.truncation_side == expected


@pytest.mark.parametrize("name", ["BertweetTokenizer", "PhobertTokenizer", "BertJapaneseTokenizer"])
def test_classes_with_rules_of_their_own_are_refused(name: str, write: Write) -> None:
    with pytest.raises(UnsupportedModelError, match=f"is for {name}, .* by rules of its own"):
        read_text_files(write(bert(), "roberta", tokenizer_class=name))


@pytest.mark.parametrize("normalizer", [["a"], {"type": "Sequence", "normalizers": [["a"]]}])
def test_what_only_the_library_can_read_is_an_error(normalizer: Any, write: Write) -> None:
    path = write(bert(), "bert")
    content = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps(content | {"normalizer": normalizer}))
    with pytest.raises(CheckpointError, match=r"no tokenizer can be built|cannot be loaded"):
        read_text_files(path)


def test_names_of_templates_are_names_of_files(write: Write) -> None:
    for name in ("a" * 300, "..", "a/b"):
        path = write(bert(), "bert", chat_template=[{"name": name, "template": "x"}])
        with pytest.raises(CheckpointError, match="cannot be the name of a file"):
            read_text_files(path)
    odd = write(bert(), "bert", chat_template=[{"name": ["a"], "template": "x"}])
    with pytest.raises(CheckpointError, match="cannot be the name of a file"):
        read_text_files(odd)


def test_cutting_and_padding_in_tokenizer_json_have_no_effect(write: Write) -> None:
    tokenizer = bert()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    path = write(tokenizer, "bert")
    (path / "tokenizer.json").write_bytes(read_text_files(path)["tokenizer.json"])
    found = open_tokenizer(path)
    assert found is not None
    assert len(found.encode("cat cafe cat")) == 5


@pytest.mark.parametrize(
    ("model", "named", "byte_level", "expected"),
    [
        ("gpt2", None, True, "GPT2"),
        ("bert", "PreTrainedTokenizerFast", False, AS_IT_IS),
        ("bert", "ElectraTokenizerFast", False, "Electra"),
        ("llama", None, False, AS_IT_IS),
        ("llama", "LlamaTokenizerFast", False, "Llama"),
        ("llama", "LlamaTokenizer", True, AS_IT_IS),
        ("llama", "GPT2Tokenizer", True, "GPT2"),
        ("mistral", "LlamaTokenizer", False, AS_IT_IS),
        ("phi3", "LlamaTokenizerFast", False, AS_IT_IS),
        ("qwen2", "LlamaTokenizerFast", True, "Qwen2"),
        ("qwen2", "PreTrainedTokenizerFast", True, "Qwen2"),
        ("qwen3", "PreTrainedTokenizerFast", True, AS_IT_IS),
        ("gpt_bigcode", "GPT2TokenizerFast", True, AS_IT_IS),
        ("m2m_100", "NllbTokenizerFast", False, "Nllb"),
        ("", "BertTokenizer", False, "Bert"),
        ("new", "NewTokenizer", False, AS_IT_IS),
    ],
)
def test_the_class_that_transformers_takes(model: str, named: str | None, byte_level: bool, expected: str) -> None:
    assert class_name({"model_type": model}, {"tokenizer_class": named}, byte_level) == expected
    assert class_name({"model_type": model, "tokenizer_class": named}, {}, byte_level) == expected


def test_a_class_that_makes_another_model_says_what_to_do(write: Write) -> None:
    path = write(bert(), "t5")
    with pytest.raises(UnsupportedModelError, match=r"holds a WordPiece model, .* T5Tokenizer would .*PreTrained"):
        read_text_files(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fast_tokenizer_files": ["tokenizer.4.0.0.json", "tokenizer.json"]},
            r"transformers, tokenizer\.4\.0",
        ),
        ({"fix_mistral_regex": True}, r"asks for fix_mistral_regex"),
    ],
)
def test_options_that_would_make_another_tokenizer(options: dict[str, Any], message: str, write: Write) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        read_text_files(write(byte_pairs(), "mistral", **options))


def test_a_vocabulary_that_nothing_reads_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match=r"has tekken.json but no tokenizer.json"):
        read_text_files(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token": 5},
        {"eos_token": ["</s>"]},
        {"extra_special_tokens": 5},
        {"extra_special_tokens": [5]},
        {"added_tokens_decoder": [1]},
        {"added_tokens_decoder": {"x": {"content": "a"}}},
        {"added_tokens_decoder": {"1": {"content": 5}}},
        {"additional_special_tokens": [{"text": "a"}]},
    ],
    ids=str,
)
def test_settings_that_are_none(config: dict[str, Any], write: Write) -> None:
    path = write(byte_pairs(), "gpt2", **config)
    with pytest.raises(CheckpointError, match="its list of added tokens cannot be read"):
        read_settings(path, None)


@pytest.mark.parametrize("as_it_is", [False, True])
def test_an_id_beyond_all_vocabularies(as_it_is: bool, write: Write) -> None:
    """The library lists every id that is missing below it: with this one, 8 GiB."""
    path = write(byte_pairs(), "gpt2", **({"tokenizer_class": "PreTrainedTokenizerFast"} if as_it_is else {}))
    content = json.loads((path / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 1 << 31
    (path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer.json numbers a token 2147483648, expected at most 4194304"):
        read_text_files(path)


def test_such_an_id_without_tokenizer_json(tmp_path: Path) -> None:
    ids = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    files = {"config.json": {"model_type": "gpt2"}, "vocab.json": {**ids, "a": 1 << 31, END: len(ids)}}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"vocab.json numbers a token 2147483648, expected at most 4194304"):
        read_text_files(tmp_path)
