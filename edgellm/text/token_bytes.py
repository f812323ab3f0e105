"""What each token writes: the bytes that texts are put together from, by what a tokenizer.json says of its decoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tokenizers

from edgellm.errors import OptionError

BYTE = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}  # sentencepiece's tokens for single bytes


@dataclass(frozen=True)
class TokenBytes:
    """By token id, what it writes behind other tokens, and what it writes as the first one where that differs: some
    decoders drop the space that a text begins with. `special`: the names of tokens that write nothing."""

    inside: Mapping[int, bytes]
    first: Mapping[int, bytes]
    special: Mapping[int, bytes]


def token_bytes(tokenizer: tokenizers.Tokenizer) -> TokenBytes:
    """Raises OptionError where the decoder does more than put tokens one behind the other."""
    decode, start = _reader(tokenizer)
    added = tokenizer.get_added_tokens_decoder()
    special = {i: token.content.encode() for i, token in added.items() if token.special}
    known = sorted((i, token) for token, i in tokenizer.get_vocab(with_added_tokens=True).items())
    vocabulary = {i: token for i, token in known if i not in special}
    inside = {i: added[i].content.encode() if i in added else decode(token) for i, token in vocabulary.items()}
    first = {i: start(text) for i, text in inside.items() if text.startswith(b" ")}
    return TokenBytes(inside, {i: text for i, text in first.items() if text != inside[i]}, special)


def _reader(tokenizer: tokenizers.Tokenizer) -> tuple[Callable[[str], bytes], Callable[[bytes], bytes]]:
    """What a token becomes, and what of that is left at the beginning of a text."""
    steps = [] if tokenizer.decoder is None else list(_steps(json.loads(tokenizer.decoder.__getstate__())))
    kinds = {step["type"] for step in steps}
    if kinds == {"ByteLevel"}:
        return _byte_level, lambda text: text
    if kinds == {"Metaspace"}:
        (step,) = steps
        kept = step.get("prepend_scheme") == "never"
        mark = str(step["replacement"])
        return lambda token: token.replace(mark, " ").encode(), lambda text: text if kept else text.replace(b" ", b"")
    if kinds >= {"Replace"} and all(map(_is_plain, steps)):
        return partial(_piece, steps=steps), lambda text: text[1:] if "Strip" in kinds else text
    raise OptionError(
        f"a constraint needs to know what each token writes, and this model's tokenizer ({_name(tokenizer)}) changes "
        "tokens by those beside them; leave it out"
    )


def _steps(decoder: Any) -> Iterator[Any]:
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _steps(part)
    else:
        yield decoder


def _is_plain(step: Any) -> bool:
    """Whether it is one of those in decoders like Llama 2's: a mark is a space, and one is dropped in front."""
    kind = step["type"]
    if kind == "Replace":
        return "String" in step["pattern"]
    if kind == "Strip":
        return (step["content"], step["start"], step["stop"]) == (" ", 1, 0)
    return kind in {"ByteFallback", "Fuse"}


def _piece(token: str, steps: Sequence[Any]) -> bytes:
    for step in steps:
        if step["type"] == "ByteFallback" and token in BYTE:
            return BYTE[token]
        if step["type"] == "Replace":
            token = token.replace(step["pattern"]["String"], step["content"])
    return token.encode()


def _name(tokenizer: tokenizers.Tokenizer) -> str:
    return f"{type(tokenizer.model).__name__}, {type(tokenizer.decoder).__name__}"


def _byte_level(token: str) -> bytes:
    """The bytes that GPT-2's stand-ins are for; other characters, which only added tokens have, are themselves."""
    try:
        return token.translate(STAND_INS).encode("latin-1")
    except UnicodeEncodeError:
        return b"".join(chr(STAND_INS[ord(c)]).encode("latin-1") if ord(c) in STAND_INS else c.encode() for c in token)


def _stand_ins() -> dict[int, int]:
    """Of GPT-2's characters, by number, the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {256 + i: byte for i, byte in enumerate(others)}


STAND_INS = _stand_ins()
