"""The tokenizers library's errors as edgellm's, and what its files must not ask for.

Its Rust code raises plain Exception, ValueError or TypeError, and where it panics (a regular expression that backtracks
too long, a template with a token that is not there) a BaseException that nobody expects.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgellm.errors import EdgellmError

MAX_GROWTH = 4096  # characters that normalization, or decoding, may make of one


@contextmanager
def library_errors(readable: Callable[[str], EdgellmError]) -> Iterator[None]:
    """Turns the library's complaints into the errors that `readable` makes of their text."""
    try:
        yield
    except BaseException as error:
        if not _is_complaint(error):
            raise
        raise readable(" ".join(str(error).split())) from error


def _is_complaint(error: BaseException) -> bool:
    """Whether an error is the library's: a plain Exception, a panic, or a TypeError or ValueError for what cannot
    become a Rust string or number, such as half a character."""
    ours = isinstance(error, EdgellmError)
    named = type(error) is Exception or type(error).__name__ == "PanicException"
    return named or (isinstance(error, ValueError | TypeError | OverflowError) and not ours)


def check_growth(tokenizer: Any, readable: Callable[[str], EdgellmError]) -> None:
    """Raises an error for replacements that, one after the other, make a text longer without bound."""
    for what, part in (("normalizer", tokenizer.normalizer), ("decoder", tokenizer.decoder)):
        growth = 1 if part is None else _growth(json.loads(part.__getstate__()))
        if growth > MAX_GROWTH:
            raise readable(f"its {what} makes up to {growth} characters of one, at most {MAX_GROWTH} are allowed")


def _growth(step: Any) -> int:
    """The most characters that a step makes of one; the count stops a little above MAX_GROWTH."""
    total = 1
    for part in (*step.get("normalizers", ()), *step.get("decoders", ())):
        total = min(total * _growth(part), MAX_GROWTH + 1)
    match step.get("type"):
        case "Replace":
            pattern, content = step.get("pattern") or {}, str(step.get("content", ""))
            shortest = max(1, len(pattern.get("String", "")))
            return max(1, -(-len(content) // shortest) + (not pattern.get("String")))
        case "Prepend":
            return 1 + len(str(step.get("prepend", "")))
        case "Precompiled":
            return _longest_entry(step.get("precompiled_charsmap") or "")
    return total


def _longest_entry(table: str) -> int:
    """The longest text in the table of a SentencePiece normalization: a trie behind its size, then the texts, each
    ended by a zero byte."""
    raw = base64.b64decode(table)
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(1, *map(len, texts.split(b"\0")))
