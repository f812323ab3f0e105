"""Damage to JSON that leaves it JSON, so that what lies behind the reader is reached too."""

from __future__ import annotations

import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**60, 2**63, -(2**63), 2**64,
    10**30, 10**4000, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"), "", "a", "\0", "\ud800", "é",
    "🙂", "../outside", "/etc/passwd", "..", ".", "a/b", "C:\\a", "x" * 300, "%s%n", "{layer}", "{", [], {}, [[]],
    [None], {"": None}, [0] * 20, "0", "-1", "1e9", " ",
)  # fmt: skip


LONGEST = 10_000  # characters of a text


def mutate_json(data: bytes, size: int, seed: int) -> bytes | None:
    """The JSON `data` with one to four damages, at most `size` bytes; None where it is not JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    rng = random.Random(seed)
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            value = damaged(value, rng)
        text = json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None
    return text if len(text) <= size else None


PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80",
    b"\\ud800", b"\\u0000", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"[" * 3000, b'{"a":' * 3000, b"NaN",
    b"-Infinity", b"1e999", b"-0", b"1" * 5000, b"null", b"true", b"Content-Length: 5\r\n",
    b"Content-Length: 99999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Host: evil.example\r\n", b"Origin: null\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Content-Type: text/plain\r\n", b"Content-Encoding: gzip\r\n",
    b"%00", b"..", b"%2e%2e/", b"//", b"?", b"#", b"HEAD ", b"OPTIONS ", b"\r\n\r\n", b"0\r\n\r\n", b"-1\r\n",
    b"ffffffffffffffff\r\n",
)  # fmt: skip


def mutate_bytes(data: bytes, size: int, seed: int) -> bytes:
    """`data` with one to four damages, at most `size` bytes: cut, doubled, moved, a bit of another, a piece put in."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = _damaged_bytes(data, rng)[:size]
    return data


def _damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 2, 4, 16, 64)))
    match rng.randrange(8):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[stop:]
        case 2:
            return data[:stop] + data[start:]
        case 3 if start < len(data):
            return data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
        case 4:
            place = rng.randrange(len(data) + 1)
            return data[:place] + data[start:stop] + data[place:]
        case 5:
            return data[:start] + rng.randbytes(stop - start) + data[stop:]
        case _:
            return data[:start] + rng.choice(PIECES) + data[start:]


def damaged(value: Any, rng: random.Random) -> Any:
    """A copy of `value` in which one place is another."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        return _in_object(value, rng)
    if isinstance(value, list) and value and rng.random() < 0.85:
        return _in_list(value, rng)
    return _instead(value, rng)


def _in_object(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    key = rng.choice(list(value))
    match rng.randrange(10):
        case 0:
            return {k: v for k, v in value.items() if k != key}
        case 1:
            return value | {str(rng.choice(ODD))[:40]: value[key]}
        case 2:
            return value | {key: value[rng.choice(list(value))]}
        case 3:
            return {(str(rng.choice(ODD))[:40] if k == key else k): v for k, v in value.items()}
        case _:
            return value | {key: damaged(value[key], rng)}


def _in_list(value: list[Any], rng: random.Random) -> list[Any]:
    at = rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return [*value, value[at]]
        case 2:
            return value[::-1]
        case 3 if len(value) < 200:
            return value * 2
        case _:
            return [*value[:at], damaged(value[at], rng), *value[at + 1 :]]


def _instead(value: Any, rng: random.Random) -> Any:
    kind = rng.randrange(10)
    if kind < 3 and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, rng)
    if kind < 4 and isinstance(value, str):
        return _text(value, rng)
    if kind == 5:
        return nested(value, rng.choice((1, 2, 50, 400)))
    return rng.choice(ODD)


def _number(value: int | float, rng: random.Random) -> int | float:
    try:
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, value // 2))
    except OverflowError:
        return 0


def _text(value: str, rng: random.Random) -> str:
    at = rng.randrange(len(value) + 1)
    piece = rng.choice(
        ("", " ", "\n", "\0", "a", "\ud800", "..", "/", "{{", "%}", "\u2581", str(rng.randrange(1 << 40)))
    )
    return rng.choice(
        (value[:at] + piece + value[at:], value[:at], value[at:], (value + value)[:LONGEST], (value * 50)[:LONGEST])
    )


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value
