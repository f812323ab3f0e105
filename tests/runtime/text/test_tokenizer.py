from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from edgellm.errors import InputError, PackageCorruptError
from edgellm.package.json_data import read_json
from edgellm.text.tokenizer import CLEAN_BPE, LONG, Detokenizer, Tokenizer, stop_string_matcher
from tiny_package import tiny_tokenizer

CORPUS = ["Hello world, said the naïve café owner. 你好世界 🙂👍🏽 Zażółć gęślą jaźń."] * 3


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Gemma: spaces are ▁, unknown characters are written as bytes."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdehlorw", "é", "▁h", "▁w", "ll"]
    merges = [("▁", "h"), ("▁", "w"), ("l", "l")]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return Tokenizer(tokenizer)


def metaspace() -> Tokenizer:
    pieces = ["<unk>", "<s>", "▁", "▁▁", *"abcdehlorw", "▁h", "▁w", "ll", "é", "好"]
    tokenizer = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return Tokenizer(tokenizer)


TOKENIZERS = {
    "bytes": Tokenizer(tiny_tokenizer()),
    "byte-level": Tokenizer(byte_level_tokenizer()),
    "byte-fallback": byte_fallback(),
    "metaspace": metaspace(),
}


def pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(token) for token in tokens), detokenizer.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=30))
@example(text="  hello  world ")
@example(text="a👩‍👩‍👧‍👦b你好")
def test_pieces_of_any_text_add_up(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    tokens = tokenizer.encode(text).tolist()
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(numbers=st.lists(st.integers(0, 10**6), max_size=20))
def test_pieces_of_any_tokens_add_up(name: str, numbers: list[int]) -> None:
    """Also where the tokens are no valid UTF-8, are special, or are unknown to the tokenizer."""
    tokenizer = TOKENIZERS[name]
    tokens = [number % (tokenizer.vocab_size + 3) for number in numbers]
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_a_character_is_never_split() -> None:
    assert pieces(TOKENIZERS["bytes"], list("é你🙂".encode())) == ["", "é", "", "", "你", "", "", "", "🙂", ""]


def test_incomplete_bytes_come_out_at_the_end() -> None:
    assert pieces(TOKENIZERS["bytes"], [*b"ab", 0xF0, 0x9F]) == ["a", "b", "", "", "\ufffd"]


def test_only_the_first_space_is_dropped() -> None:
    tokenizer = TOKENIZERS["byte-fallback"]
    assert pieces(tokenizer, tokenizer.encode("he w").tolist()) == ["h", "e", " w", ""]


def test_special_tokens_have_no_text() -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert pieces(tokenizer, [256, ord("a"), 257]) == ["", "a", "", ""]
    assert tokenizer.decode([256, ord("a")], skip_special_tokens=False) == "<|bos|>a"


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(numbers=st.lists(st.integers(0, 10**6), max_size=20))
def test_special_tokens_to_keep_have_their_text_and_others_none(name: str, numbers: list[int]) -> None:
    tokenizer = TOKENIZERS[name]
    special = sorted(tokenizer.special_ids)
    tokens = [special[n % len(special)] if n % 3 == 0 else n % tokenizer.vocab_size for n in numbers]
    kept, others = special[0], special[1:]
    detokenizer = Detokenizer(tokenizer, keep=[tokenizer.token_of(kept), "no such token", "a"])
    text = "".join(map(detokenizer.add, tokens)) + detokenizer.flush()
    assert text == tokenizer.decode([t for t in tokens if t not in others], skip_special_tokens=False)
    assert tokenizer.token_of(kept) in text or kept not in tokens


def test_a_special_token_to_keep_comes_at_once_and_ends_a_character_that_is_incomplete() -> None:
    tokenizer = TOKENIZERS["bytes"]
    detokenizer = Detokenizer(tokenizer, keep={"<|eos|>"})
    assert [detokenizer.add(token) for token in (97, 257, 256, 0xF0, 257, 98)] == [
        "a", "<|eos|>", "", "", "\ufffd<|eos|>", "b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("Hello", ["ell"], 4),
        ("Hello", ["o", "lo"], 5),
        ("a好b", ["好"], 4),
        ("aaaa", ["aaaaa"], None),
        ("x" * 100 + "END", ["END"], 103),
    ],
)
def test_stop_strings_match_where_they_are_complete(text: str, stops: list[str], expected: int | None) -> None:
    tokenizer = TOKENIZERS["bytes"]
    matches = stop_string_matcher(tokenizer, stops)
    assert matches is not None
    tokens = tokenizer.encode(text)
    assert next((n for n in range(1, len(tokens) + 1) if matches(tokens[:n])), None) == expected


def test_a_special_token_may_be_a_stop_string_or_a_part_of_one() -> None:
    tokenizer = TOKENIZERS["bytes"]
    for stop, tokens in (("<|eos|>", [*b"ab", 257]), ("b<|eos|>", [*b"ab", 257]), ("os|>\n", [257, *b"\n"])):
        matches = stop_string_matcher(tokenizer, [stop])
        assert matches is not None
        found = [matches(np.array(tokens[:n])) for n in range(1, len(tokens) + 1)]
        assert found == [*[False] * (len(tokens) - 1), True]


def test_a_stop_string_that_lies_before_the_last_token_is_over() -> None:
    matches = stop_string_matcher(TOKENIZERS["bytes"], ["ab"])
    assert matches is not None
    assert [matches(np.array([*b"xabyb"][:n])) for n in range(1, 6)] == [False, False, True, False, False]


def test_no_stop_strings_need_no_matcher() -> None:
    assert stop_string_matcher(TOKENIZERS["bytes"], []) is None


def test_tokens_and_their_ids() -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert (tokenizer.id_of("<|eos|>"), tokenizer.id_of("no such token")) == (257, None)
    assert (tokenizer.token_of(257), tokenizer.token_of(10**6)) == ("<|eos|>", "")
    assert tokenizer.join(["<|eos|>", "a"]) == "<|eos|>a"
    assert not tokenizer.marks_continuations


def test_encodings_know_where_tokens_come_from() -> None:
    tokenizer = TOKENIZERS["bytes"]
    encoding = tokenizer.encoding("ab", "é")
    assert encoding.ids.tolist() == [97, 98, 0xC3, 0xA9]
    assert encoding.texts.tolist() == [0, 0, 1, 1]
    assert encoding.offsets.tolist() == [[0, 1], [1, 2], [0, 1], [0, 1]]
    words = tokenizer.encoding(["ab", "c"])
    assert (words.words.tolist(), words.offsets.tolist()) == ([0, 0, 1], [[0, 1], [1, 2], [0, 1]])
    with pytest.raises(InputError, match="lone surrogate"):
        tokenizer.encoding("a", "caf\udce9")


def test_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(InputError, match=r"lone surrogate \(U\+DCE9 at position 3\)"):
        TOKENIZERS["bytes"].encode("caf\udce9")
    with pytest.raises(InputError, match="expected text, found bytes"):
        TOKENIZERS["bytes"].encode(b"abc")  # type: ignore[arg-type]


def test_broken_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PackageCorruptError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(PackageCorruptError, match="holds a JSON list"):
        read_json(tmp_path / "config.json")


CLEAN = {"clean_up_tokenization_spaces": True}


def spaced() -> tokenizers.Tokenizer:
    """Unigram, as T5's: words and marks with a space before each."""
    pieces = ["<unk>", *(f"▁{word}" for word in ("it", "'", "s", ".", "do", "n't", "here"))]
    tokenizer = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def test_text_is_cleaned_up_where_the_tokenizers_config_says_so() -> None:
    cleaning, leaving = Tokenizer(spaced(), CLEAN), Tokenizer(spaced())
    ids = leaving.encode("do n't it ' s here .").tolist()
    assert leaving.decode(ids) == "do n't it ' s here ."
    assert cleaning.decode(ids) == "don't it's here."
    assert cleaning.decode(ids, clean_up=False) == "do n't it ' s here ."
    assert leaving.decode(ids, clean_up=True) == "don't it's here."
    detokenizer = Detokenizer(cleaning)
    assert "".join(map(detokenizer.add, ids)) + detokenizer.flush() == "don't it's here."


def test_merged_tokens_are_not_cleaned_up() -> None:
    """As in transformers 5: their spaces are the text's."""
    for config, expected in ((CLEAN, "a . b"), ({**CLEAN, CLEAN_BPE: True}, "a. b")):
        tokenizer = Tokenizer(tiny_tokenizer(), config)
        assert tokenizer.decode(tokenizer.encode("a . b", add_special_tokens=False).tolist()) == expected


def test_special_tokens_in_a_text_are_text_where_the_tokenizers_config_says_so() -> None:
    made = byte_level_tokenizer()
    special = Tokenizer(made).encode("a<s>b").tolist()
    text = Tokenizer(byte_level_tokenizer(), {"split_special_tokens": True}).encode("a<s>b").tolist()
    assert made.token_to_id("<s>") in special
    assert made.token_to_id("<s>") not in text
    assert Tokenizer(byte_level_tokenizer()).decode(text) == "a<s>b"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_long_texts_are_encoded_as_short_ones_are(name: str) -> None:
    tokenizer, text = TOKENIZERS[name], "hello world, naïve 你好 <s> 🙂 " * 200
    assert len(text) > LONG
    plain = tokenizer._tokenizer
    for added in (True, False):
        ids = plain.encode(text, add_special_tokens=added).ids
        assert tokenizer.encode(text, add_special_tokens=added).tolist() == ids
    assert tokenizer.decode(ids) == plain.decode(ids)
    for parts in ((text, None), (text, text), (text.split(), None)):
        found, expected = tokenizer.encoding(*parts), plain.encode(*parts, is_pretokenized=parts[0] != text)
        assert (found.ids.tolist(), found.offsets.tolist()) == (expected.ids, [list(each) for each in expected.offsets])


def test_a_long_text_does_not_hold_other_threads_up() -> None:
    """One client of a server with a text that is far too long, for example."""
    steps, tokenizer = 0, TOKENIZERS["bytes"]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(tokenizer.encode, "ab " * 50_000)
        while not running.done():
            steps += 1
            time.sleep(0.001)
    assert steps > 20
