"""tokenizer.json from vocab.txt, beside transformers' own BertTokenizer on the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers as hf

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.tokenizer.files import read_text_files

PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "un", "##aff", "##able", "cat", "##s", "naive", "na", "##ïve",
    "Cat", "caf", "##e", "##é", "cafe", ",", ".", "!", "中", "国", "a", "##b", "##c", "1", "##2", "'", "s",
]  # fmt: skip
TEXTS = [
    "The unaffable cats!", "Naïve cafés, naïve Café.", "中国the cat", "", "   ", "abc 12 it's", "[MASK] cat [SEP]",
    "x" * 200,
    "a\u0301bc\ttab\nline\u200bzero \ufffd control\x01", "the,cat.the!cat",
]  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}])
def test_tokens_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    reference = hf.BertTokenizer(str(tmp_path / "vocab.txt"), **settings)
    found = tokenizers.Tokenizer.from_buffer(read_text_files(tmp_path)["tokenizer.json"])
    for text in TEXTS:
        assert found.encode(text).ids == reference(text)["input_ids"], text
        pair = found.encode(text, "the cat")
        wanted = reference(text, "the cat")
        assert (pair.ids, pair.type_ids) == (wanted["input_ids"], wanted["token_type_ids"])


def test_prophetnets_own_file(tmp_path: Path) -> None:
    """Which ends texts with [SEP], begins them with nothing, and knows [X_SEP], as transformers 5 does."""
    (tmp_path / "prophetnet.tokenizer").write_text("\n".join([*PIECES, "[X_SEP]"]) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "prophetnet"}')
    reference = hf.ProphetNetTokenizer(str(tmp_path / "prophetnet.tokenizer"))
    files = read_text_files(tmp_path)
    found = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
    for text in TEXTS:
        assert found.encode(text).ids == reference(text)["input_ids"], text
        assert found.encode(text, "the cat").ids == reference(text, "the cat")["input_ids"]
    assert found.encode("cat[X_SEP]the").ids == [9, len(PIECES), 5, 3]
    assert found.decode([9, len(PIECES), 5, 3]) == "cat the"
    assert json.loads(files["tokenizer_config.json"])["clean_up_tokenization_spaces"] is True


def test_roformers_words_are_not_cut_by_a_dictionary_here(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "roformer"}')
    with pytest.raises(UnsupportedModelError, match="is for RoFormerTokenizer, which transformers builds"):
        read_text_files(tmp_path)


def test_a_vocabulary_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"vocab.txt lacks the token \[UNK\]"):
        read_text_files(tmp_path)
