"""The header of a saved session: what lies where in the file, and what it belongs to. Reading one trusts nothing.

    offset 0   MAGIC, 8 bytes
           8   format version, 32 bits
          12   size of the JSON text in bytes, 32 bits
          16   sha256 of the JSON text, 32 bytes
          48   JSON text (UTF-8), filled up with spaces to a multiple of ALIGNMENT from the beginning of the file
         ...   the arrays, each from a multiple of ALIGNMENT on, with zeros between them

Numbers are little-endian. The arrays are the token ids, [tokens] int64, and then for each layer its keys and its
values, [num_kv_heads, tokens, head_dim] each, or one array where values are keys, or what its short convolution would
read again, [1, kernel - 1, width] of the last tokens, or the two arrays of its state. All about them follows from the
header, and so does the file's size.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Literal

from edgellm.errors import InputError, SessionCorruptError, SessionVersionError
from edgellm.package.json_data import Mistyped, build
from edgellm.package.manifest import CACHE_ITEM_BYTES, ConvLayout, StateLayout

MAGIC = b"\x93EDGEKV\n"  # no text, and changed by a transfer as text
FORMAT_VERSION = 1
ALIGNMENT = 64  # bytes
MAX_HEADER = 4 * 1024 * 1024  # bytes of JSON, which takes a multiple of that in memory
TOKEN_BYTES = 8

_PRELUDE = struct.Struct("<8sII32s")


@dataclass(frozen=True)
class StoredCache:
    """The arrays of keys and values: two for each of `num_layers`, one where `values_are_keys`, or those that `conv`
    and `states` say."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: Literal["float32", "float16", "bfloat16", "int8"]
    conv: ConvLayout | None = None
    values_are_keys: bool = False
    states: StateLayout | None = None

    @property
    def arrays(self) -> int:
        """How many; computed, as a damaged header may have any number of layers."""
        convolved = 0 if self.conv is None else len(self.conv.layers)
        stated = 0 if self.states is None else len(self.states.layers)
        attend = self.num_layers - convolved - stated
        return (1 if self.values_are_keys else 2) * attend + convolved + 2 * stated

    def sizes(self, tokens: int) -> list[int]:
        """Bytes of each array, layer by layer."""
        side = self.num_kv_heads * tokens * self.head_dim * CACHE_ITEM_BYTES[self.dtype]
        sides = [side] * (1 if self.values_are_keys else 2)
        others = {**self._convolutions(tokens), **self._states(tokens)}
        return [size for i in range(self.num_layers) for size in others.get(i, sides)]

    def _convolutions(self, tokens: int) -> dict[int, list[int]]:
        """Bytes of the arrays of the layers that have others than keys and values."""
        conv = self.conv
        if conv is None:
            return {}
        one = min(tokens, conv.kernel - 1) * conv.width * CACHE_ITEM_BYTES[conv.dtype]
        return {layer: [one] for layer in conv.layers}

    def _states(self, tokens: int) -> dict[int, list[int]]:
        states, number = self.states, CACHE_ITEM_BYTES["float32"] if tokens else 0
        if states is None:
            return {}
        sizes = (states.kernel - 1) * states.width, states.num_heads * states.head_dim * states.state_size
        return {layer: [size * number for size in sizes] for layer in states.layers}


@dataclass(frozen=True)
class Extent:
    """Where an array lies in the file, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """`package`, `tokenizer`: sha256 of the graphs with their weights, and of tokenizer.json ("": there is none).
    `tokens`: how many the cache holds, of which the first `read` were read as a prompt. `long_table`: the keys are of
    the rotary table for long sequences. `checksums`: CRC-32 of each array. `metadata` is the caller's; `versions` are
    of the software that wrote the file, for people to read."""

    package: str
    tokenizer: str
    cache: StoredCache
    tokens: int
    read: int
    long_table: bool
    checksums: tuple[int, ...]
    byte_order: Literal["little"] = "little"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each array: the token ids, then keys and values, layer by layer."""
        return [self.tokens * TOKEN_BYTES, *self.cache.sizes(self.tokens)]

    def to_bytes(self) -> bytes:
        """All that comes before the arrays. Raises InputError for `metadata` that JSON cannot hold."""
        content = asdict(self)
        for name in [name for name in ("conv", "states") if content["cache"][name] is None]:  # younger than the format
            del content["cache"][name]
        try:
            text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the session's metadata cannot be saved, expected JSON data: {error}") from error
        if aligned(_PRELUDE.size + len(text)) > MAX_HEADER:
            raise InputError(f"the session's metadata takes {len(text)} bytes, expected at most {MAX_HEADER}")
        text += b" " * (aligned(_PRELUDE.size + len(text)) - _PRELUDE.size - len(text))
        return _PRELUDE.pack(MAGIC, FORMAT_VERSION, len(text), hashlib.sha256(text).digest()) + text


@dataclass(frozen=True)
class FileLayout:
    """A header, and where its arrays lie."""

    header: Header
    extents: tuple[Extent, ...]
    file_bytes: int


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def lay_out(header: Header, header_bytes: int) -> FileLayout:
    """Where the arrays lie behind a header of so many bytes, prelude included. The file ends with the last one."""
    extents, end = [], header_bytes
    for size in header.sizes:
        extents.append(Extent(aligned(end), size))
        end = extents[-1].offset + size
    return FileLayout(header, tuple(extents), end)


def read_header(file: BinaryIO) -> FileLayout:
    """Read and check the header of an open file, from its beginning. The size of the file must be what the header says;
    nothing that is larger than the file is allocated. The arrays are not looked at.

    Raises SessionVersionError or SessionCorruptError.
    """
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(_PRELUDE.size)
    if not start.startswith(MAGIC):
        raise SessionCorruptError("it does not begin as a saved session does")
    if len(start) < _PRELUDE.size:
        raise SessionCorruptError(f"it ends after {len(start)} bytes")
    _, version, size, checksum = _PRELUDE.unpack(start)
    if version > FORMAT_VERSION:
        raise SessionVersionError(f"it has format version {version}, this edgellm reads up to {FORMAT_VERSION}")
    if version < 1:
        raise SessionCorruptError(f"its format version is {version}")
    if size > min(MAX_HEADER, file_bytes - _PRELUDE.size) or aligned(_PRELUDE.size + size) != _PRELUDE.size + size:
        raise SessionCorruptError(f"its header has {size} bytes, and the file {file_bytes}")
    text = file.read(size)
    if hashlib.sha256(text).digest() != checksum:
        raise SessionCorruptError("the checksum of its header is wrong")
    layout = lay_out(_parse(text), _PRELUDE.size + size)
    if layout.file_bytes != file_bytes:
        raise SessionCorruptError(f"it has {file_bytes} bytes, and its header says {layout.file_bytes}")
    return layout


def _parse(text: bytes) -> Header:
    try:
        header = build(Header, json.loads(text.decode()), "header")
    except (Mistyped, ValueError, RecursionError) as error:
        raise SessionCorruptError(f"its header cannot be read: {error}") from error
    cache = header.cache
    numbers = {
        "cache.num_layers": (cache.num_layers, 1),
        "cache.num_kv_heads": (cache.num_kv_heads, 1),
        "cache.head_dim": (cache.head_dim, 1),
        "tokens": (header.tokens, 0),
        "read": (header.read, 0),
    }
    for name, (value, least) in numbers.items():
        if value < least:
            raise SessionCorruptError(f"its header says that {name} is {value}, expected at least {least}")
    if header.read > header.tokens:
        raise SessionCorruptError(f"its header says that {header.read} of {header.tokens} tokens were read")
    conv = cache.conv
    if conv is not None and not _fits(conv, cache.num_layers):
        raise SessionCorruptError(f"its header says that cache.conv is {conv}, of {cache.num_layers} layers")
    if cache.states is not None and (conv is not None or not cache.states.fits(cache.num_layers)):
        raise SessionCorruptError(f"its header says that cache.states is {cache.states}, of {cache.num_layers} layers")
    if len(header.checksums) != 1 + cache.arrays:
        raise SessionCorruptError(f"its header has {len(header.checksums)} checksums for {cache.num_layers} layers")
    return header


def _fits(conv: ConvLayout, layers: int) -> bool:
    """Whether it is of some of so many layers, each named once."""
    named = {*conv.layers}
    return (
        min(conv.width, conv.kernel) >= 1
        and len(named) == len(conv.layers) < layers
        and all(0 <= each < layers for each in named)
    )
