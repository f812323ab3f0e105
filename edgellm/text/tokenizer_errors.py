"""A tokenizer.json through the tokenizers library: its errors as edgellm's, and what a file must not ask for.

Its Rust code raises plain Exception, ValueError or TypeError, and where it panics (a regular expression that backtracks
too long, a template with a token that is not there) a BaseException that nobody expects.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tokenizers

from edgellm.errors import EdgellmError

MAX_GROWTH = 4096  # characters that normalization, or decoding, may make of one
TABLE = re.compile(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"')
ESCAPED_LETTER = re.compile(rb"\\u00(?:5[fF]|[67])")  # of which no writer of JSON makes any; "_" and small letters


def load_tokenizer(content: bytes, readable: Callable[[str], EdgellmError]) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json. Raises the error that `readable` makes of what is wrong with it."""
    if ESCAPED_LETTER.search(content):
        content = _rewritten(content, readable)
    for table in TABLE.findall(content):
        if not is_whole_table(_decoded(table)):
            raise readable("its precompiled_charsmap is cut off")
    with library_errors(readable):
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    check_growth(tokenizer, readable)
    return tokenizer


def _rewritten(content: bytes, readable: Callable[[str], EdgellmError]) -> bytes:
    """The same JSON as Python writes it. Raises the error that `readable` makes."""
    try:
        return json.dumps(json.loads(content)).encode()
    except (ValueError, RecursionError) as error:
        raise readable(str(error)) from error


def _decoded(table: bytes) -> bytes:
    try:
        return base64.b64decode(table.replace(b"\\/", b"/"), validate=True)
    except binascii.Error:
        return b""


def is_whole_table(table: bytes) -> bool:
    """Whether SentencePiece's table of how characters are normalized (the size of a trie, the trie, texts) has the trie
    that it says. The library makes room for any, and ends the process where there is none."""
    return int.from_bytes(table[:4], "little") + 4 < len(table)


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
