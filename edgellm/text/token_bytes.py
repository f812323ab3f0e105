"""What each token writes: the bytes that texts are put together from, by what a tokenizer.json says of its decoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
        table = _byte_level()
        return lambda token: b"".join(table.get(c) or c.encode() for c in token), lambda text: text
    if kinds == {"Metaspace"}:
        (step,) = steps
        kept = step.get("prepend_scheme") == "never"
        mark = str(step["replacement"])
        return lambda token: token.replace(mark, " ").encode(), lambda text: text if kept else text.replace(b" ", b"")
    if "Replace" in kinds and kinds <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        drops = sum(int(step["start"]) for step in steps if step["type"] == "Strip" and step["content"] == " ")
        replaced = [(str(step["pattern"].get("String")), str(step["content"])) for step in steps if "pattern" in step]

        def decode(token: str) -> bytes:
            if "ByteFallback" in kinds and token in BYTE:
                return BYTE[token]
            for mark, text in replaced:
                token = token.replace(mark, text)
            return token.encode()

        return decode, lambda text: text[1:] if drops else text
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


def _name(tokenizer: tokenizers.Tokenizer) -> str:
    return f"{type(tokenizer.model).__name__}, {type(tokenizer.decoder).__name__}"


def _byte_level() -> dict[str, bytes]:
    """The bytes that GPT-2's stand-ins are for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    return {name: bytes([byte]) for name, byte in names.items()}
