"""What an ONNX file says of itself, read without the onnx package: only the fields that matter are decoded.

The numbers are those of onnx.proto (onnx 1.19).
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgellm.errors import PackageCorruptError

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
NODE_INPUT, NODE_OP_TYPE, NODE_ATTRIBUTE = 1, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 1, 3, 5, 6, 11
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_EXTERNAL = 1, 2, 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_ELEMENT, TENSOR_SHAPE = 1, 2
SHAPE_DIM = 1
DIM_VALUE, DIM_NAME = 1, 2
DTYPES = {  # numpy's names
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 21: "uint4", 22: "int4",
}  # fmt: skip

Bytes = memoryview
T = TypeVar("T")


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph. `storage`: those that share their bytes have the same; `location`: the file that holds
    them, beside the graph, or None."""

    name: str
    dims: tuple[int, ...]
    data_type: int
    storage: tuple[str, ...]
    location: str | None

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


@dataclass(frozen=True)
class Port:
    """An input or output. `dtype`: numpy's name, or "type N". `shape`: numbers, or names of what varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphFacts:
    """`external`: the files that hold weights, by what the graph calls them. `weights`: how many numbers the constants
    have of each of ONNX's types. `bits`: of numbers that operators unpack from bytes. `operators`: kinds of nodes."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    external: frozenset[str]
    weights: Mapping[int, int]
    bits: frozenset[int]
    operators: frozenset[str]


def read_graph(path: Path) -> GraphFacts:
    """Raises PackageCorruptError where `path` is not an ONNX model."""
    return parsed(path, _facts)


def parsed(path: Path, parse: Callable[[Bytes], T]) -> T:
    """What `parse` makes of the graph in `path`. Raises PackageCorruptError where that is not an ONNX model."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last piece of it
        graph = next(messages(memoryview(mapped), MODEL_GRAPH), None)
        if graph is None:
            raise ValueError("it has no graph")
        return parse(graph)
    except (OSError, ValueError, IndexError, KeyError, RecursionError) as error:
        raise PackageCorruptError(f"{path} is not an ONNX model: {error}; copy or export the package again") from error


def read_tensor(message: Bytes) -> Tensor:
    name = next(texts(message, TENSOR_NAME), "")
    data_type, dims = 0, list[int]()
    for field, value in fields(message):
        if field == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif field == TENSOR_TYPE and isinstance(value, int):
            data_type = value
    entries = {
        next(texts(entry, ENTRY_KEY), ""): next(texts(entry, ENTRY_VALUE), "")
        for entry in messages(message, TENSOR_EXTERNAL)
    }
    place = (entries["location"], entries.get("offset", "0")) if entries else (name,)
    return Tensor(name, tuple(dims), data_type, place, entries["location"] if entries else None)


def messages(data: Bytes, wanted: int) -> Iterator[Bytes]:
    return (value for field, value in fields(data) if field == wanted and not isinstance(value, int))


def texts(data: Bytes, wanted: int) -> Iterator[str]:
    return (bytes(message).decode() for message in messages(data, wanted))


def number(data: Bytes, wanted: int) -> int | None:
    return next((value for field, value in fields(data) if field == wanted and isinstance(value, int)), None)


def fields(data: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Field numbers and values of a protocol buffer message: whole numbers, or the bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {field} has the unknown wire type {kind}")
        if at + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield field, data[at : at + size]
        at += size


def _facts(graph: Bytes) -> GraphFacts:
    tensors = list(_tensors(graph))
    constants = {tensor.name for tensor in tensors}
    inputs, outputs = (ports_of(graph, field) for field in (GRAPH_INPUT, GRAPH_OUTPUT))
    weights: Counter[int] = Counter()
    for each in {tensor.storage: tensor for tensor in tensors}.values():
        weights[each.data_type] += each.elements
    return GraphFacts(
        inputs={name: port for name, port in inputs.items() if name not in constants},
        outputs=outputs,
        external=frozenset(tensor.location for tensor in tensors if tensor.location is not None),
        weights=weights,
        bits=frozenset(_bits(graph)),
        operators=frozenset(operators_of(graph)),
    )


def _tensors(graph: Bytes) -> Iterator[Tensor]:
    """Initializers and constants, those of subgraphs too."""
    for message in messages(graph, GRAPH_INITIALIZER):
        yield read_tensor(message)
    for node in messages(graph, GRAPH_NODE):
        for attribute in messages(node, NODE_ATTRIBUTE):
            for message in messages(attribute, ATTRIBUTE_TENSOR):
                yield read_tensor(message)
            for subgraph in (*messages(attribute, ATTRIBUTE_GRAPH), *messages(attribute, ATTRIBUTE_GRAPHS)):
                yield from _tensors(subgraph)


def _bits(graph: Bytes) -> Iterator[int]:
    for node in messages(graph, GRAPH_NODE):
        for attribute in messages(node, NODE_ATTRIBUTE):
            if next(texts(attribute, ATTRIBUTE_NAME), "") == "bits":
                yield number(attribute, ATTRIBUTE_INT) or 0
            for subgraph in messages(attribute, ATTRIBUTE_GRAPH):
                yield from _bits(subgraph)


def operators_of(graph: Bytes) -> Iterator[str]:
    """Of each node, those of subgraphs too."""
    for node in messages(graph, GRAPH_NODE):
        yield next(texts(node, NODE_OP_TYPE), "")
        for attribute in messages(node, NODE_ATTRIBUTE):
            for subgraph in messages(attribute, ATTRIBUTE_GRAPH):
                yield from operators_of(subgraph)


def ports_of(graph: Bytes, field: int) -> dict[str, Port]:
    """By name. `field`: inputs or outputs."""
    ports = [_port(message) for message in messages(graph, field)]
    return {port.name: port for port in ports}


def _port(message: Bytes) -> Port:
    name = next(texts(message, VALUE_NAME), "")
    kind = next((t for value in messages(message, VALUE_TYPE) for t in messages(value, TYPE_TENSOR)), memoryview(b""))
    element = number(kind, TENSOR_ELEMENT) or 0
    dims = [dim for shape in messages(kind, TENSOR_SHAPE) for dim in messages(shape, SHAPE_DIM)]
    return Port(name, DTYPES.get(element, f"type {element}"), tuple(_dim(dim) for dim in dims))


def _dim(dim: Bytes) -> int | str:
    value = number(dim, DIM_VALUE)
    return next(texts(dim, DIM_NAME), "?") if value is None else value


def _packed(data: Bytes) -> list[int]:
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
