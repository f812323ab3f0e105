"""GGUF files out of JSON, so that its keys and values can be damaged rather than its bytes."""

from __future__ import annotations

import struct
from typing import Any

U8, I32, U32, F32, BOOL, STRING, ARRAY, U64, I64 = 0, 5, 4, 6, 7, 8, 9, 10, 11
ALIGNMENT = 32
DATA = struct.pack("<f", 1.0) * (1 << 14)


def gguf_bytes(data: dict[str, Any]) -> bytes:
    """A GGUF file of {"pairs": {key: value}, "tensors": [[name, shape outermost first, type, offset], ...]}; parts of
    another form are left out."""
    given, entries = data.get("pairs"), data.get("tensors")
    pairs = [
        (key, pair) for key, value in (given if isinstance(given, dict) else {}).items() if (pair := _value(value))
    ]
    tensors = [made for entry in (entries if isinstance(entries, list) else []) if (made := _tensor(entry))]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(_string(key) + value for key, value in pairs) + b"".join(tensors)
    return head + bytes(-len(head) % ALIGNMENT) + DATA


def gguf_parts(data: dict[str, Any]) -> dict[str, bytes]:
    """The files of a model in two parts, {"first": ..., "second": ...}."""
    parts = [data.get(name) for name in ("first", "second")]
    return {
        f"model-{number:05}-of-00002.gguf": gguf_bytes(part if isinstance(part, dict) else {})
        for number, part in enumerate(parts, 1)
    }


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<IB", BOOL, value)
        case int() if 0 <= value < 1 << 32:
            return struct.pack("<II", U32, value)
        case int() if 0 <= value < 1 << 64:
            return struct.pack("<IQ", U64, value)
        case int() if -(1 << 63) <= value < 0:
            return struct.pack("<Iq", I64, value)
        case float():
            return struct.pack("<I", F32) + _single(value)
        case str():
            return struct.pack("<I", STRING) + _string(value)
        case list():
            return struct.pack("<I", ARRAY) + _array(value)
        case {"bytes": str(text)}:
            raw = text.encode("latin-1", "replace")
            return struct.pack("<IIQ", ARRAY, U8, len(raw)) + raw
    return b""


def _single(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf"))


def _array(items: list[Any]) -> bytes:
    """An array of the type that most items have."""
    texts = [item for item in items if isinstance(item, str)]
    numbers = [item for item in items if isinstance(item, float)]
    if len(texts) * 2 > len(items):
        return struct.pack("<IQ", STRING, len(texts)) + b"".join(map(_string, texts))
    if len(numbers) * 2 > len(items):
        return struct.pack("<IQ", F32, len(numbers)) + b"".join(map(_single, numbers))
    integers = [item for item in items if type(item) is int and abs(item) < 1 << 31]
    return struct.pack(f"<IQ{len(integers)}i", I32, len(integers), *integers)


def _tensor(entry: Any) -> bytes:
    match entry:
        case [str(name), list(shape), int(kind), int(offset)] if all(type(size) is int for size in shape):
            sizes = [size % (1 << 64) for size in reversed(shape)]
            dims = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
            return _string(name) + dims + struct.pack("<IQ", kind % (1 << 32), offset % (1 << 64))
    return b""
