from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import BYTES, byte_level, tiny_llama

CORPUS = Path(__file__).parent / "data" / "smollm2_tokens.json"


def opened(path: Path, tokenizer: dict[str, Any], **metadata: Any) -> Checkpoint:
    return open_checkpoint(str(tiny_llama(path / "w.gguf", tokenizer=tokenizer, **metadata)))


def loaded(checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.from_buffer(checkpoint.files["tokenizer.json"])


def read(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(checkpoint.files[name])
    return data


@pytest.mark.real_model
def test_tokens_are_those_of_llama_cpp(smollm2_gguf: Path) -> None:
    """The corpus was made by benchmarks/tokenizer_parity.py --seed 7 --strings 300 --save."""
    tokenizer = loaded(open_checkpoint(str(smollm2_gguf)))
    for row in json.loads(CORPUS.read_text()):
        for key, plain in (("ids", False), ("plain_ids", True)):
            tokenizer.encode_special_tokens = plain
            assert tokenizer.encode(row["text"]).ids == row[key], row["text"]


@pytest.mark.real_model
def test_real_model_files(smollm2_gguf: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(smollm2_gguf))
    assert set(checkpoint.files) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    }
    assert checkpoint.config["num_hidden_layers"] == 30
    assert checkpoint.config["rms_norm_eps"] == 1e-5
    assert checkpoint.config["eos_token_id"] == [2, 0, 4]  # 4: <reponame>, at which llama.cpp ends too
    assert len(checkpoint.tensors) == 272
    for name, content in checkpoint.files.items():
        (tmp_path / name).write_bytes(content)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer(text).input_ids
    assert ids[0] == 1
    assert tokenizer.decode(ids) == text


def test_byte_level_text_comes_back(tmp_path: Path) -> None:
    tokenizer = loaded(opened(tmp_path, byte_level()))
    text = "the thing \u00e9\u4f60\U0001f600\n\t!"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("the").ids == [257]
    assert tokenizer.encode("the<|end|>").ids == [257, 258]
    assert tokenizer.decode([257, 258]) == "the"
    assert tokenizer.decode([257, 258], skip_special_tokens=False) == "the<|end|>"


def test_bos_and_eos_are_added_when_the_file_says_so(tmp_path: Path) -> None:
    control = ["<|start|>", "<|end|>"]
    more = {"bos_token_id": 258, "add_bos_token": True, "add_eos_token": True}
    checkpoint = opened(tmp_path, byte_level(control=control, **more))
    tokenizer = loaded(checkpoint)
    assert tokenizer.encode("the").ids == [258, 257, 259]
    assert tokenizer.encode("the", add_special_tokens=False).ids == [257]
    config = read(checkpoint, "tokenizer_config.json")
    assert (config["bos_token"], config["eos_token"], config["add_bos_token"]) == ("<|start|>", "<|end|>", True)


def test_llama3_adds_bos_unless_the_file_forbids_it(tmp_path: Path) -> None:
    bos = byte_level(control=["<|start|>"], pre="llama-bpe", bos_token_id=258)
    assert loaded(opened(tmp_path, bos)).encode("the").ids == [258, 257]
    assert loaded(opened(tmp_path, bos | {"tokenizer.ggml.add_bos_token": False})).encode("the").ids == [257]


def test_user_defined_tokens_are_found_but_not_special(tmp_path: Path) -> None:
    metadata = byte_level(control=["<tool>", "<|end|>"])
    metadata["tokenizer.ggml.token_type"][258] = 4
    tokenizer = loaded(opened(tmp_path, metadata))
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode("<tool><|end|>").ids
    assert ids[0] == 258
    assert 259 not in ids
    assert tokenizer.decode([258, 259]) == "<tool>"


def test_generation_ends_at_every_ending(tmp_path: Path) -> None:
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|other|>"]
    more = {"eos_token_id": 260, "eot_token_id": 261, "padding_token_id": 258}
    checkpoint = opened(tmp_path, byte_level(control=control, **more))
    generation = read(checkpoint, "generation_config.json")
    assert generation == {"eos_token_id": [260, 261, 258], "pad_token_id": 258}
    assert checkpoint.config["eos_token_id"] == [260, 261, 258]


def test_chat_template_is_carried(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, byte_level(), **{"tokenizer.chat_template": "{{ '\u00e9' }}"})
    assert checkpoint.files["chat_template.jinja"].decode() == "{{ '\u00e9' }}"
    assert read(checkpoint, "tokenizer_config.json")["chat_template"] == "{{ '\u00e9' }}"


CUTS = {
    "gpt-2": ["a", "\u01201234", "'", "LL"],
    "smollm": ["a", "\u0120", "1", "2", "3", "4", "'", "LL"],
    "llama-bpe": ["a", "\u0120", "123", "4", "'LL"],
    "qwen2": ["a", "\u0120", "1", "2", "3", "4", "'LL"],
}


@pytest.mark.parametrize("pre", CUTS)
def test_pre_tokenizers_cut_their_own_way(tmp_path: Path, pre: str) -> None:
    tokenizer = loaded(opened(tmp_path, byte_level(pre=pre)))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a 1234'LL")] == CUTS[pre]


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", "a", "b", "ab", "\u2581ab", "  "]
KINDS = [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1, 4]
SCORES = [0.0, 0.0, 0.0, *[0.0] * 256, -4.0, -5.0, -6.0, -1.0, -2.0, 0.0]


def scored(**more: Any) -> dict[str, Any]:
    base = {"model": "llama", "tokens": PIECES, "token_type": KINDS, "scores": SCORES} | more
    return {f"tokenizer.ggml.{key}": value for key, value in base.items()}


def test_scored_vocabularies_merge_by_score_and_fall_back_to_bytes(tmp_path: Path) -> None:
    tokenizer = loaded(opened(tmp_path, scored()))
    ids = {piece: index for index, piece in enumerate(PIECES)}
    assert tokenizer.encode("ab").ids == [1, ids["\u2581ab"]]
    assert tokenizer.encode("abb", add_special_tokens=False).ids == [ids["\u2581ab"], ids["b"]]
    assert tokenizer.encode("\u00e9", add_special_tokens=False).ids == [ids["\u2581"], ids["<0xC3>"], ids["<0xA9>"]]
    assert tokenizer.encode("a  b</s>ab", add_special_tokens=False).ids == [
        ids["\u2581"], ids["a"], ids["  "], ids["\u2581"], ids["b"], ids["</s>"], ids["\u2581ab"]
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("ab \u00e9").ids) == "ab \u00e9"


def test_space_prefix_can_be_off(tmp_path: Path) -> None:
    tokenizer = loaded(opened(tmp_path, scored(add_space_prefix=False, add_bos_token=False)))
    assert tokenizer.encode("ab").ids == [PIECES.index("ab")]
    assert tokenizer.decode(tokenizer.encode(" ab").ids) == " ab"


def test_phi3_control_tokens_swallow_what_follows(tmp_path: Path) -> None:
    tokenizer = loaded(opened(tmp_path, scored(add_bos_token=False), **{"general.name": "Phi-3 Mini"}))
    spaced, joined = tokenizer.encode("</s> \nab").ids, tokenizer.encode("</s>ab").ids
    assert spaced == joined
    assert tokenizer.encode("<s> ab").ids != tokenizer.encode("<s>ab").ids


def test_templates_with_names_are_carried(tmp_path: Path) -> None:
    templates = {"tokenizer.chat_template": "a", "tokenizer.chat_template.tool_use": "b"}
    checkpoint = opened(tmp_path, byte_level(), **templates, **{"tokenizer.chat_templates": ["tool_use"]})
    assert checkpoint.files["chat_template.jinja"] == b"a"
    assert read(checkpoint, "tokenizer_config.json")["chat_template"] == [
        {"name": "default", "template": "a"},
        {"name": "tool_use", "template": "b"},
    ]
    with pytest.raises(CheckpointError, match="names the chat template 'rag' and does not hold it"):
        opened(tmp_path, byte_level(), **templates, **{"tokenizer.chat_templates": ["tool_use", "rag"]})


def test_templates_without_a_default(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, byte_level(), **{"tokenizer.chat_template.tool_use": "b"})
    assert checkpoint.files["chat_template.jinja"] == b"b"
    checkpoint = opened(tmp_path, byte_level(), **{"tokenizer.chat_template.rag": "c"})
    assert "chat_template.jinja" not in checkpoint.files


def test_settings_of_sampling_are_defaults_of_generation(tmp_path: Path) -> None:
    given = {"temp": 0.75, "top_k": 20, "top_p": 0.5, "min_p": 0.25, "penalty_repeat": 1.25, "penalty_last_n": 64}
    metadata = {f"general.sampling.{key}": value for key, value in given.items()}
    generation = read(opened(tmp_path, byte_level(), **metadata), "generation_config.json")
    assert generation == {
        "eos_token_id": [258],
        "temperature": 0.75,
        "top_k": 20,
        "top_p": 0.5,
        "min_p": 0.25,
        "do_sample": True,
        "repetition_penalty": 1.25,
    }
    cold = read(opened(tmp_path, byte_level(), **{"general.sampling.temp": 0.0}), "generation_config.json")
    assert cold == {"eos_token_id": [258], "do_sample": False}
    for key, value in (("xtc_probability", 0.5), ("mirostat", 2), ("odd", 1)):
        with pytest.raises(UnsupportedModelError, match=rf"general\.sampling\.{key} is {value}, which"):
            opened(tmp_path, byte_level(), **{f"general.sampling.{key}": value})


def test_settings_of_sampling_out_of_range_are_taken_as_llamacpp_does(tmp_path: Path) -> None:
    given = {"temp": -1.0, "top_k": -1, "top_p": 1.5, "min_p": -0.5}
    metadata = {f"general.sampling.{key}": value for key, value in given.items()}
    generation = read(opened(tmp_path, byte_level(), **metadata), "generation_config.json")
    assert generation == {"eos_token_id": [258], "do_sample": False, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [("temp", "hot"), ("top_k", 0.5), ("top_p", float("nan")), ("min_p", True), ("penalty_repeat", 0.0)],
)
def test_settings_of_sampling_that_are_no_numbers_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"w\.gguf: general\.sampling\.{key} is {value!r}, expected a"):
        opened(tmp_path, byte_level(), **{f"general.sampling.{key}": value})


def test_tokens_that_may_not_be_chosen_are_carried(tmp_path: Path) -> None:
    generation = read(opened(tmp_path, byte_level(suppress_tokens=[3, 999])), "generation_config.json")
    assert generation["suppress_tokens"] == [3]


def test_lists_of_end_tokens_are_read(tmp_path: Path) -> None:
    assert opened(tmp_path, byte_level(eos_token_ids=[5, 7, 999])).config["eos_token_id"] == [258, 5, 7]


UNIGRAM = {"model": "t5", "scores": [-1.0] * 259}
BROKEN: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown kind": ({"model": "rwkv"}, UnsupportedModelError, "tokenizer of type 'rwkv', expected gpt2, llama, bert"),
    "unknown key": ({"magic": 1}, UnsupportedModelError, r"may change tokens: tokenizer\.ggml\.magic"),
    "cut table": ({**UNIGRAM, "precompiled_charsmap": b"\xff\xff\xff\x7f\0\0"}, CheckpointError, "charsmap is cut off"),
    "table of other numbers": (
        {**UNIGRAM, "precompiled_charsmap": [300, 2]},
        CheckpointError,
        "charsmap is no list of bytes",
    ),
    "no unigram scores": ({"model": "t5"}, CheckpointError, r"lacks tokenizer\.ggml\.scores"),
    "unknown cut": ({"pre": "qwen3"}, UnsupportedModelError, "pre-tokenizer 'qwen3'; did you mean 'qwen2'"),
    "no merges": ({"merges": [1, 2]}, CheckpointError, "no usable tokenizer.ggml.merges"),
    "merge of one": ({"merges": ["th"]}, CheckpointError, "merge 'th', expected two tokens"),
    "merge of unknown tokens": ({"merges": ["t zz"]}, CheckpointError, "no tokenizer can be built"),
    "twice": ({"tokens": ["a"] * 259}, CheckpointError, "the token 'a' occurs twice"),
    "types short": ({"token_type": [1, 1]}, CheckpointError, "no usable tokenizer.ggml.token_type"),
    "scores short": ({"model": "llama", "scores": [1.0]}, CheckpointError, "no usable tokenizer.ggml.scores"),
    "no scores": ({"model": "llama"}, CheckpointError, "lacks tokenizer.ggml.scores"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_unusable_vocabularies_are_refused(tmp_path: Path, case: str) -> None:
    changes, error, message = BROKEN[case]
    with pytest.raises(error, match=message):
        opened(tmp_path, byte_level() | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})


def test_ids_outside_the_vocabulary_mean_none(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, byte_level(bos_token_id=9999, add_bos_token=True))
    assert "bos_token_id" not in checkpoint.config
    assert loaded(checkpoint).encode("the").ids == [257]


def test_the_byte_table_is_gpt2s() -> None:
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    assert sorted(BYTES) == sorted(bytes_to_unicode().values())
