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

from edgellm.errors import corrupt
from edgellm.package.protobuf import Bytes, fields, messages, number, packed, texts

MODEL_PRODUCER, MODEL_GRAPH = 2, 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 1, 2, 3, 5, 6, 11
ATTRIBUTE_KIND = 20
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
class Node:
    """One step of a graph, of which each part is decoded when it is asked for."""

    message: Bytes

    @property
    def name(self) -> str:
        return next(texts(self.message, NODE_NAME), "")

    @property
    def operator(self) -> str:
        return next(texts(self.message, NODE_OP_TYPE), "")

    @property
    def domain(self) -> str:
        return next(texts(self.message, NODE_DOMAIN), "")

    @property
    def inputs(self) -> list[str]:
        return list(texts(self.message, NODE_INPUT))

    @property
    def outputs(self) -> list[str]:
        return list(texts(self.message, NODE_OUTPUT))

    @property
    def numbers(self) -> dict[str, int]:
        """The attributes that are whole numbers, by name."""
        found = {next(texts(each, ATTRIBUTE_NAME), ""): number(each, ATTRIBUTE_INT) for each in self._attributes}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def attributes(self) -> list[str]:
        """The attributes' names."""
        return [next(texts(each, ATTRIBUTE_NAME), "") for each in self._attributes]

    @property
    def tensors(self) -> list[Bytes]:
        """The attributes that are tensors."""
        return [tensor for each in self._attributes for tensor in messages(each, ATTRIBUTE_TENSOR)]

    @property
    def subgraphs(self) -> list[Bytes]:
        kinds = ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS
        return [graph for each in self._attributes for kind in kinds for graph in messages(each, kind)]

    @property
    def _attributes(self) -> Iterator[Bytes]:
        return messages(self.message, NODE_ATTRIBUTE)


@dataclass(frozen=True)
class GraphFacts:
    """What a graph says of itself. `external`: the files that hold weights, by what the graph calls them. `weights`:
    how many numbers the constants have of each of ONNX's types. `bits`: of numbers that operators unpack from bytes.
    `operators`: kinds of nodes."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    external: frozenset[str]
    weights: Mapping[int, int]
    bits: frozenset[int]
    operators: frozenset[str]


def read_graph(path: Path) -> GraphFacts:
    """The facts of the graph in `path`. Raises PackageCorruptError where that is not an ONNX model."""
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
        raise corrupt(f"{path} is not an ONNX model: {error}", or_copy=True) from error


def read_tensor(message: Bytes) -> Tensor:
    name = next(texts(message, TENSOR_NAME), "")
    data_type, dims = 0, list[int]()
    for field, value in fields(message):
        if field == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else packed(value)
        elif field == TENSOR_TYPE and isinstance(value, int):
            data_type = value
    entries = {
        next(texts(entry, ENTRY_KEY), ""): next(texts(entry, ENTRY_VALUE), "")
        for entry in messages(message, TENSOR_EXTERNAL)
    }
    place = (entries["location"], entries.get("offset", "0")) if entries else (name,)
    return Tensor(name, tuple(dims), data_type, place, entries["location"] if entries else None)


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
        bits=frozenset(bits for node in all_nodes(graph) if (bits := node.numbers.get("bits")) is not None),
        operators=frozenset(node.operator for node in all_nodes(graph)),
    )


def nodes_of(graph: Bytes) -> Iterator[Node]:
    return map(Node, messages(graph, GRAPH_NODE))


def initializers_of(graph: Bytes) -> dict[str, Bytes]:
    """The tensors that are constants of the graph, by name."""
    return {next(texts(message, TENSOR_NAME), ""): message for message in messages(graph, GRAPH_INITIALIZER)}


def all_nodes(graph: Bytes) -> Iterator[Node]:
    """The nodes of a graph and of its subgraphs."""
    for node in nodes_of(graph):
        yield node
        for subgraph in node.subgraphs:
            yield from all_nodes(subgraph)


def _tensors(graph: Bytes) -> Iterator[Tensor]:
    """Initializers and constants, those of subgraphs too."""
    yield from map(read_tensor, messages(graph, GRAPH_INITIALIZER))
    for node in nodes_of(graph):
        yield from map(read_tensor, node.tensors)
        for subgraph in node.subgraphs:
            yield from _tensors(subgraph)


def ports_of(graph: Bytes, field: int) -> dict[str, Port]:
    """The graph's ports by name. `field`: inputs or outputs."""
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
