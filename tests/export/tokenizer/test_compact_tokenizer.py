"""tokenizer.json with its merges joined: smaller, and the same tokenizer."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from edgellm_export.tokenizer.build import compact

LETTERS = {letter: i for i, letter in enumerate(" #abcdefghijklmnopqrsuvéĠ")}


def bpe(*merges: tuple[str, str]) -> bytes:
    """As the library writes it for people."""
    vocab = LETTERS | {a + b: len(LETTERS) + i for i, (a, b) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="Ġ")
    return str(tokenizer.to_str(pretty=True)).encode()


def test_merges_are_strings_and_tokens_the_same() -> None:
    content = bpe(("h", "e"), ("l", "l"), ("he", "ll"), ("é", "Ġ"))
    found = compact(content)
    assert json.loads(found)["model"]["merges"] == ["h e", "l l", "he ll", "é Ġ"]
    assert len(found) < 0.6 * len(content)
    texts = ["hello hell é heé", "", "llama"]
    encoded = [[Tokenizer.from_buffer(each).encode(text).ids for text in texts] for each in (content, found)]
    assert encoded[0] == encoded[1]
    assert Tokenizer.from_buffer(found).to_str() == Tokenizer.from_buffer(content).to_str()
    assert compact(found) == found


@pytest.mark.parametrize("merge", [(" ", "a"), ("a", " "), ("#version", "a")])
def test_merges_that_a_string_would_change_stay(merge: tuple[str, str]) -> None:
    word = [("#", "v"), ("#v", "e"), ("#ve", "r"), ("#ver", "s"), ("#vers", "i"), ("#versi", "o"), ("#versio", "n")]
    content = bpe(*word, merge)
    assert json.loads(compact(content)) == json.loads(content)


@pytest.mark.parametrize("content", [b'{"version": "\\ud800"}', b'{"x": NaN}', b"[" * 100_000, b"\xff"])
def test_what_cannot_be_written_again_stays(content: bytes) -> None:
    assert compact(content) == content


def test_other_kinds_of_models_only_get_shorter() -> None:
    content = str(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str(pretty=True)).encode()
    assert json.loads(compact(content)) == json.loads(content)
