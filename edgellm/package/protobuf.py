"""The wire format of protocol buffers, as far as ONNX files have it: numbered fields of whole numbers and of bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

Bytes = memoryview


def messages(data: Bytes, wanted: int) -> Iterator[Bytes]:
    return (data[start:end] for field, value, _, start, end in _entries(data) if field == wanted and value is None)


def texts(data: Bytes, wanted: int) -> Iterator[str]:
    return (bytes(message).decode() for message in messages(data, wanted))


def number(data: Bytes, wanted: int) -> int | None:
    return next((value for field, value, *_ in _entries(data) if field == wanted and value is not None), None)


def fields(data: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Field numbers and values of a protocol buffer message: whole numbers, or the bytes of anything else."""
    return ((field, data[start:end] if value is None else value) for field, value, _, start, end in _entries(data))


def rewritten(data: Bytes, change: Callable[[int, Bytes], bytes | None]) -> bytes:
    """The message with other fields: `change` gives the new bytes of a field by its number and bytes, None for one that
    stays."""
    parts = []
    for field, value, whole in spans(data):
        changed = None if isinstance(value, int) else change(field, value)
        parts.append(bytes(whole) if changed is None else encoded(field, changed))
    return b"".join(parts)


def encoded(field: int, value: int | bytes) -> bytes:
    """A field as it lies in a message."""
    if isinstance(value, int):
        return _as_varint(field << 3) + _as_varint(value)
    return _as_varint(field << 3 | 2) + _as_varint(len(value)) + value


def encoded_float(field: int, value: float) -> bytes:
    """A float32 field as it lies in a message."""
    return _as_varint(field << 3 | 5) + struct.pack("<f", value)


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes(parts) + bytes([value])


def spans(data: Bytes) -> Iterator[tuple[int, int | Bytes, Bytes]]:
    """The fields, and all that each takes in the message, its number included."""
    for field, value, begin, start, end in _entries(data):
        yield field, data[start:end] if value is None else value, data[begin:end]


def _entries(data: Bytes) -> Iterator[tuple[int, int | None, int, int, int]]:
    """The fields: the number, the value where it is a whole number, where the field begins, and from where to where its
    bytes lie. A graph has ten thousands, and most numbers one byte: those are read here."""
    at, length = 0, len(data)
    while at < length:
        begin, key = at, data[at]
        if key < 128:
            at += 1
        else:
            key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 2:
            size = data[at]
            if size < 128:
                at += 1
            else:
                size, at = _varint(data, at)
        elif kind == 0:
            value, at = _varint(data, at)
            yield field, value, begin, at, at
            continue
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {field} has the unknown wire type {kind}")
        if at + size > length:
            raise ValueError("it ends in the middle of a field")
        yield field, None, begin, at, at + size
        at += size


def packed(data: Bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        numbers.append(value)
    return numbers


def _varint(data: Bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next byte lies."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("it has a number of more than ten bytes")
