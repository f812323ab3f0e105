"""tokenizer.json from vocab.json and merges.txt, beside transformers' own tokenizers on the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers as hf
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

from edgellm.errors import CheckpointError
from edgellm_export.tokenizer.files import read_text_files

MERGES = ["t h", "th e", "Ġ th", "Ġth e", "c a", "ca t", "Ġ cat", "1 2"]
PIECES = [
    "<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values(),
    *("".join(merge.split()) for merge in MERGES), "<mask>",
]  # fmt: skip
MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
TEXTS = [
    "the cat", " the  cat\n", "", "   ", "The <mask> cat", "the<mask>cat", "</s><s> x", "naïve 中国 😀 don't 1212",
    "<pad> a\tb", "a <mask>  b",
]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(model_type: str = "roberta", *, merges: list[str] = MERGES, **config: Any) -> Path:
        vocab = {piece: index for index, piece in enumerate(PIECES)}
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": MASK}))
        return tmp_path

    return write


def built(path: Path) -> Any:
    return tokenizers.Tokenizer.from_buffer(read_text_files(path)["tokenizer.json"])


@pytest.mark.parametrize(
    ("model_type", "reference", "settings"),
    [
        ("roberta", hf.RobertaTokenizer, {}),
        ("bart", hf.BartTokenizer, {}),
        # Behind a special token the slow classes add no space; the fast ones, which transformers prefers, do.
        ("roberta", hf.RobertaTokenizerFast, {"add_prefix_space": True}),
        ("bart", hf.BartTokenizerFast, {"add_prefix_space": True}),
    ],
)
def test_tokens_of_transformers(model_type: str, reference: Any, settings: Any, write: Callable[..., Path]) -> None:
    path = write(model_type, **settings)
    wanted, found = reference.from_pretrained(path, **settings), built(path)
    for text in TEXTS:
        assert found.encode(text).ids == wanted(text)["input_ids"], text
        assert found.encode(text, "the cat").ids == wanted(text, "the cat")["input_ids"], text
        assert found.decode(found.encode(text).ids) == wanted.decode(
            wanted(text)["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def test_added_tokens(write: Callable[..., Path]) -> None:
    size = len(PIECES)
    added = {str(size): {"content": "<ent>", "special": True}, str(size + 1): {"content": "word", "special": False}}
    path = write(tokenizer_class="RobertaTokenizer", added_tokens_decoder=added)
    wanted = hf.RobertaTokenizer(str(path / "vocab.json"), str(path / "merges.txt"))
    wanted.add_tokens(["<ent>"], special_tokens=True)
    wanted.add_tokens(["word"])
    for text in ("the<ent>cat", "a word or<ent>"):
        assert built(path).encode(text).ids == wanted(text)["input_ids"], text
    write(added_tokens_decoder={str(size + 5): {"content": "<ent>", "special": True}})
    assert built(path).token_to_id("<ent>") == size  # new tokens get the next ids, as in transformers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merges": ["t zz"]}, "no tokenizer can be built of its files .*Token `zz`|out of vocabulary"),
        ({"merges": ["t h e"]}, "merges.txt has a line that is not two tokens"),
    ],
)
def test_files_that_do_not_fit(change: dict[str, Any], message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=message):
        built(write(**change))
