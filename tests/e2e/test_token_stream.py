"""Long texts in blocks have the tokens, and the bytes and words of tokens, that they have as a whole."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tokenizers
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.evaluation.token_stream import Tokens, TokenStream, Units, tokens_of, units_of
from edgellm.text.tokenizer import Tokenizer
from text_checkpoints import SENTENCES, byte_pairs, unigrams, word_pieces

TEXT = "".join(SENTENCES) + pydoc_data.topics.topics["execmodel"][:6000] + " naïve 漢字かな 🙂🙂  \n\n\t x" * 20


def _bytes_with_bos() -> tokenizers.Tokenizer:
    made = byte_pairs().backend_tokenizer
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


MAKERS: Mapping[str, Callable[[], tokenizers.Tokenizer]] = {
    "bytes": _bytes_with_bos,
    "words": lambda: word_pieces(hf.BertTokenizerFast).backend_tokenizer,
    "pieces": lambda: unigrams(["<pad>", "<s>", "</s>", "<unk>"], "</s>"),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(MAKERS[request.param]())


def check(tokenizer: Tokenizer, text: str, block: int, overlap: int) -> int:
    """How many pieces there are."""
    whole = tokenizer.encoding(text)
    pieces = list(tokens_of(tokenizer, text, block=block, overlap=overlap))
    together = pieces[0]
    for piece in pieces[1:]:
        together = together.then(piece)
    assert together.ids.tolist() == whole.ids.tolist()
    units = units_of(text, whole.offsets)
    assert together.units.bytes.tolist() == units.bytes.tolist()
    assert together.units.words.tolist() == units.words.tolist()
    return len(pieces)


@pytest.mark.parametrize(("block", "overlap"), [(400, 200), (1000, 300), (7919, 500), (100_000, 100)])
def test_blocks_are_the_whole(tokenizer: Tokenizer, block: int, overlap: int) -> None:
    pieces = check(tokenizer, TEXT, block, overlap)
    assert pieces > len(TEXT) // (2 * block) or pieces == 1


def test_a_text_without_a_place_to_meet(tokenizer: Tokenizer) -> None:
    """Blocks grow until there is one."""
    check(tokenizer, "a" * 3000 + " b c d e f g" * 30, 400, 200)


@given(st.lists(st.sampled_from(["a", "the ", "\n", " ", "é", "漢", "🙂", "self.", "1984", "-", "  "]), max_size=250))
@settings(deadline=None, max_examples=60)
def test_any_text(words: list[str]) -> None:
    check(BYTES, "".join(words), 150, 100)


BYTES = Tokenizer(_bytes_with_bos())


def test_a_stream_holds_what_was_not_forgotten() -> None:
    def piece(begin: int, end: int) -> Tokens:
        places = np.arange(begin, end)
        return Tokens(places, np.stack([places, places + 1], axis=1), Units(places, places))

    stream = TokenStream(iter([piece(0, 3), piece(3, 7), piece(7, 9)]))
    assert (stream.reach(2), stream.reach(5), stream.reach(100)) == (2, 5, 9)
    assert stream.take(2, 5).ids.tolist() == [2, 3, 4]
    stream.forget(4)
    assert stream.take(4, 9).ids.tolist() == [4, 5, 6, 7, 8]
    assert TokenStream(iter([])).reach(4) == 0
