"""Decoded text without the spaces that simple English tokenizers leave before punctuation and short forms."""

from __future__ import annotations

SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
REACH = 6  # characters of the longest text that becomes one: " n ' t"


def clean_up(text: str) -> str:
    """The rules, and their order, are those of Hugging Face's tokenizers."""
    for spaced in SPACED:
        text = text.replace(spaced, spaced.strip())
    return text


class CleanUp:
    """Cleans a text that comes in pieces: what `add` and at last `flush` give adds up to the clean text. What may still
    change is held back."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str) -> str:
        self._held += piece
        cut = next((i for i in range(len(self._held), 0, -1) if _is_safe(self._held, i)), 0)
        done, self._held = self._held[:cut], self._held[cut:]
        return clean_up(done)

    def flush(self) -> str:
        done, self._held = self._held, ""
        return clean_up(done)


def _is_safe(text: str, cut: int) -> bool:
    """Whether the parts of a text, cut there, can be cleaned one by one: nothing that changes reaches from one into the
    other."""
    before_a_space = text[cut : cut + 1] == " " and text[cut - 1] not in " 'n"
    return before_a_space or " " not in text[max(0, cut - REACH) : cut]
