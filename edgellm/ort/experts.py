"""Mixtures of experts by edgellm's own kernels: one step for each, and one constant, the part of the weights' file that
its experts take, in the place of the steps and the constants of all experts."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from edgellm.ort.joining import QUICK_GELU_ALPHA
from edgellm.ort.mixtures import ACTIVATIONS, Matrix, Mixture, Unfit, mixtures_of, steps_of
from edgellm.package.onnx_file import (
    ATTRIBUTE_FLOAT,
    ATTRIBUTE_INT,
    ATTRIBUTE_KIND,
    ATTRIBUTE_NAME,
    ENTRY_KEY,
    ENTRY_VALUE,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    MODEL_GRAPH,
    NODE_ATTRIBUTE,
    NODE_DOMAIN,
    NODE_INPUT,
    NODE_NAME,
    NODE_OP_TYPE,
    NODE_OUTPUT,
    TENSOR_DIMS,
    TENSOR_EXTERNAL,
    TENSOR_NAME,
    TENSOR_TYPE,
)
from edgellm.package.protobuf import Bytes, encoded, encoded_float, fields, messages, rewritten, spans

GRAPH_VALUE, TENSOR_RAW, TENSOR_LOCATION, EXTERNAL = 13, 9, 14, 1
FLOAT32, UINT8, INT64 = 1, 2, 7
KIND_FLOAT, KIND_INT = 1, 2
STORED = (UINT8, FLOAT32, UINT8, FLOAT32)  # types of what a matrix is made of
FLOAT_BYTES = 4
ALIGNED = 64  # bytes, in what does not lie in the file
PAGE = 4096  # bytes that a weight in the file may take more than it has


@dataclass(frozen=True)
class Weight:
    """A constant: `size` bytes of the file `location` from `offset` on, or `raw` where that is None."""

    name: bytes
    data_type: int
    location: bytes | None
    offset: int
    size: int
    raw: Bytes


@dataclass(frozen=True)
class Made:
    """What a mixture becomes: a step, and its constants."""

    mixture: Mixture
    node: bytes
    tensors: Sequence[bytes]


def with_experts(model: bytes) -> bytes:
    """The ONNX model with one step for each mixture whose experts are layers that the kernels compute and whose weights
    lie together in a file; as it is where there is none."""
    if encoded(NODE_OP_TYPE, b"Split") not in model:
        return model
    graph = next(messages(memoryview(model), MODEL_GRAPH))
    steps = steps_of(graph)
    mixtures = mixtures_of(steps)
    constants = [_weight(tensor) for tensor in messages(graph, GRAPH_INITIALIZER)] if mixtures else []
    weights = {each.name: each for each in constants}
    made = {new.mixture.at: new for mixture in mixtures if (new := _made(mixture, weights)) is not None}
    if not made:
        return model
    gone = frozenset[int]().union(*(new.mixture.gone for new in made.values()))
    names = {name for new in made.values() for name in new.mixture.weights}
    unused = {name for name in names - steps.read if gone.issuperset(user.index for user in steps.users[name])}
    changed = _changed(graph, made, gone, [each.name in unused for each in constants])
    return rewritten(memoryview(model), lambda field, _: changed if field == MODEL_GRAPH else None)


def _changed(graph: Bytes, made: Mapping[int, Made], gone: Collection[int], unused: Sequence[bool]) -> bytes:
    """Without the steps that are gone, and without the constants that are unused, by their places. What the graph says
    of the types of values is left out, too: it may say it of these, and ONNX Runtime finds them by itself."""
    parts, step, constant = list[bytes | Bytes](), -1, -1
    for field, _, whole in spans(graph):
        step += field == GRAPH_NODE
        constant += field == GRAPH_INITIALIZER
        if field == GRAPH_NODE and step in gone:
            parts += [encoded(GRAPH_NODE, made[step].node)] if step in made else []
        elif field != GRAPH_VALUE and (field != GRAPH_INITIALIZER or not unused[constant]):
            parts.append(whole)
    parts += [encoded(GRAPH_INITIALIZER, tensor) for new in made.values() for tensor in new.tensors]
    return b"".join(parts)


def _weight(tensor: Bytes) -> Weight:
    name, data_type, raw, entries = b"", 0, memoryview(b""), dict[bytes, bytes]()
    for field, value in fields(tensor):
        if isinstance(value, int):
            data_type = value if field == TENSOR_TYPE else data_type
        elif field == TENSOR_NAME:
            name = bytes(value)
        elif field == TENSOR_RAW:
            raw = value
        elif field == TENSOR_EXTERNAL:
            entries.update((_entry(bytes(value)),))
    location, offset, size = entries.get(b"location"), entries.get(b"offset", b"0"), entries.get(b"length", b"0")
    return Weight(name, data_type, location, int(offset), int(size) if location is not None else len(raw), raw)


@lru_cache(maxsize=256)
def _entry(message: bytes) -> tuple[bytes, bytes]:
    """A key and a value; most constants have two out of three in common."""
    found = {field: bytes(value) for field, value in fields(memoryview(message)) if not isinstance(value, int)}
    return found.get(ENTRY_KEY, b""), found.get(ENTRY_VALUE, b"")


def _made(mixture: Mixture, weights: Mapping[bytes, Weight]) -> Made | None:
    """None where a weight is not as it should be, or they are not together in a file."""
    try:
        limit = _limit([weights[name] for name in mixture.gate.clamp])
        part = _part(mixture, weights)
    except (Unfit, KeyError, struct.error):
        return None
    name = b"/edgellm/" + mixture.output
    inner = mixture.experts[0].matrices[0]
    file, more, places = (name + each for each in (b"/file", b"/more", b"/places"))
    tensors = [_external(file, part), _tensor(places, INT64, (len(mixture.experts), 3, 6), part.places.tobytes())]
    if part.more:
        tensors.append(_tensor(more, UINT8, (len(part.more),), part.more))
    inputs = [mixture.rows, mixture.sizes, file, more if part.more else b"", places]
    node = b"".join(
        [
            *(encoded(NODE_INPUT, each) for each in inputs),
            encoded(NODE_OUTPUT, mixture.output),
            encoded(NODE_NAME, name),
            encoded(NODE_OP_TYPE, b"Experts"),
            encoded(NODE_DOMAIN, b"edgellm"),
            _whole(b"hidden", inner.depth),
            _whole(b"size", inner.columns),
            _whole(b"activation", ACTIVATIONS[mixture.gate.kind]),
            *_alpha(mixture),
            *([_float(b"limit", limit)] if limit else []),
        ]
    )
    return Made(mixture, node, tensors)


def _limit(clamp: Sequence[Weight]) -> float:
    """Of a clamped gate; 0 where it is not clamped."""
    if not clamp:
        return 0.0
    high, low, top, one = (float(struct.unpack("<f", each.raw)[0]) for each in clamp)
    if {each.data_type for each in clamp} != {FLOAT32} or not (high == top == -low > 0 and one == 1):
        raise Unfit
    return high


@dataclass(frozen=True)
class Part:
    """`size` bytes of the file `location` from `offset` on, `more` bytes, and where in both together the weights lie:
    `places` as the operator wants them."""

    location: bytes
    offset: int
    size: int
    more: bytes
    places: array[int]


def _part(mixture: Mixture, weights: Mapping[bytes, Weight]) -> Part:
    used = [weights[name] for name in mixture.weights]
    stored = [each for each in used if each.location is not None]
    locations = {each.location for each in stored}
    if len(locations) != 1:
        raise Unfit
    first, last = min(each.offset for each in stored), max(each.offset + each.size for each in stored)
    if first < 0 or last - first > sum(each.size + PAGE for each in stored):
        raise Unfit
    more, places = bytearray(), array("q")
    for expert in mixture.experts:
        for matrix in expert.matrices:
            places.extend((matrix.bits, matrix.block, *_places(matrix, weights, first, last - first, more)))
    return Part(stored[0].location or b"", first, last - first, bytes(more), places)


def _places(matrix: Matrix, weights: Mapping[bytes, Weight], first: int, behind: int, more: bytearray) -> list[int]:
    """Where what the matrix is made of lies, -1 for what it has not; what does not lie in the file goes to `more`."""
    places = []
    for name, data_type, size in zip(matrix.stored, STORED, matrix.sizes, strict=True):
        if not name:
            places.append(-1)
            continue
        weight = weights[name]
        if weight.data_type != data_type or weight.size != size or weight.offset % FLOAT_BYTES:
            raise Unfit
        if weight.location is not None:
            places.append(weight.offset - first)
            continue
        places.append(behind + len(more))
        more += bytes(weight.raw) + bytes(-size % ALIGNED)
    return places


def _alpha(mixture: Mixture) -> list[bytes]:
    """The attribute of QuickGelu, as it is there or as it is left out."""
    if mixture.gate.kind[0] != b"QuickGelu":
        return []
    return [mixture.gate.attributes or _float(b"alpha", QUICK_GELU_ALPHA)]


def _whole(name: bytes, value: int) -> bytes:
    parts = encoded(ATTRIBUTE_NAME, name), encoded(ATTRIBUTE_INT, value), encoded(ATTRIBUTE_KIND, KIND_INT)
    return encoded(NODE_ATTRIBUTE, b"".join(parts))


def _float(name: bytes, value: float) -> bytes:
    parts = encoded(ATTRIBUTE_NAME, name), encoded_float(ATTRIBUTE_FLOAT, value), encoded(ATTRIBUTE_KIND, KIND_FLOAT)
    return encoded(NODE_ATTRIBUTE, b"".join(parts))


def _tensor(name: bytes, data_type: int, dims: Sequence[int], raw: bytes) -> bytes:
    shape = [encoded(TENSOR_DIMS, size) for size in dims]
    return b"".join([*shape, encoded(TENSOR_TYPE, data_type), encoded(TENSOR_NAME, name), encoded(TENSOR_RAW, raw)])


def _external(name: bytes, part: Part) -> bytes:
    values = {b"location": part.location, b"offset": b"%d" % part.offset, b"length": b"%d" % part.size}
    entries = [
        encoded(TENSOR_EXTERNAL, encoded(ENTRY_KEY, key) + encoded(ENTRY_VALUE, value)) for key, value in values.items()
    ]
    head = encoded(TENSOR_DIMS, part.size), encoded(TENSOR_TYPE, UINT8), encoded(TENSOR_NAME, name)
    return b"".join([*head, *entries, encoded(TENSOR_LOCATION, EXTERNAL)])
