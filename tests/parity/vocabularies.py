"""Vocabularies learned of texts, the same in every process: the trainers of the tokenizers library break ties by hash
tables of random order, but for byte pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

LONGEST = 8  # characters in a piece


def word_pieces(normalizer: Any, texts: Iterable[str], size: int, special: Sequence[str]) -> dict[str, int]:
    """As BERT's: `special`, each character at the start and, behind ##, inside of words, then the pieces that cover
    most of the text. `normalizer` and BERT's pre-tokenizer make the words."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    split = BertPreTokenizer().pre_tokenize_str
    words = Counter(word for text in texts for word, _ in split(normalizer.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    covers: Counter[str] = Counter()
    for word, count in words.items():
        for start, piece in _parts(word):
            covers[piece if start == 0 else f"##{piece}"] += count * len(piece)
    return {piece: i for i, piece in enumerate([*pieces, *_most(covers, size - len(pieces))])}


def unigrams(texts: Iterable[str], size: int, special: Sequence[str]) -> list[tuple[str, float]]:
    """As SentencePiece's: pieces of words that begin with ▁, with their log probabilities, which fall with how seldom
    they are."""
    words = Counter(f"▁{word}" for text in texts for word in text.split())
    letters = Counter(letter for word, count in words.items() for letter in word * count)
    covers: Counter[str] = Counter()
    for word, count in words.items():
        for _, piece in _parts(word):
            covers[piece] += count * len(piece)
    chosen = _most(covers, size - len(special) - len(letters))
    counts = {**{piece: covers[piece] // len(piece) for piece in chosen}, **dict(sorted(letters.items()))}
    total = sum(counts.values())
    return [*((token, 0.0) for token in special), *((p, math.log(count / total)) for p, count in counts.items())]


def _parts(word: str) -> Iterator[tuple[int, str]]:
    """Where each of two and more characters begins, and it."""
    for start in range(len(word)):
        for end in range(start + 2, min(len(word), start + LONGEST) + 1):
            yield start, word[start:end]


def _most(covers: Counter[str], count: int) -> list[str]:
    return sorted(covers, key=lambda piece: (-covers[piece], piece))[: max(0, count)]
