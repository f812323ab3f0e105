"""What a graph is made of: ports, operators, and each matrix with how it is stored; from the ONNX file alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.inspection.graph_weights import BITS
from edgellm.package.onnx_file import (
    DTYPES,
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    Node,
    Port,
    Tensor,
    all_nodes,
    initializers_of,
    nodes_of,
    parsed,
    ports_of,
    read_tensor,
)
from edgellm.package.protobuf import Bytes

# Operators that only hand a constant on, in another form.
PASSING_ON = ("Cast", "Transpose", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Unsqueeze")
SMALL = 64  # elements: below it a constant is a number or a shape, not a weight

Sources = Mapping[str, Sequence[Tensor]]  # by the name of a value, the constants that it is made of


@dataclass(frozen=True)
class GraphMatrix:
    """The weights of one node. `shape`: of its largest constant, as it is stored. `bytes`: all of its constants; what
    several nodes share counts for the first."""

    node: str
    operator: str
    scheme: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class GraphSummary:
    """What a graph takes, gives and is made of. `optional`: inputs that have a default."""

    inputs: tuple[Port, ...]
    optional: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: Mapping[str, int]
    matrices: tuple[GraphMatrix, ...]

    @property
    def nodes(self) -> int:
        return sum(self.operators.values())


def summarize(path: Path) -> GraphSummary:
    """The summary of the graph in `path`. Raises PackageCorruptError where that is not an ONNX model."""
    return parsed(path, _summary)


def _summary(graph: Bytes) -> GraphSummary:
    constants, inputs = initializers_of(graph), ports_of(graph, GRAPH_INPUT)
    operators = Counter(node.operator for node in all_nodes(graph))
    return GraphSummary(
        inputs=tuple(port for name, port in inputs.items() if name not in constants),
        optional=tuple(port for name, port in inputs.items() if name in constants),
        outputs=tuple(ports_of(graph, GRAPH_OUTPUT).values()),
        operators=dict(sorted(operators.items(), key=lambda each: (-each[1], each[0]))),
        matrices=tuple(_matrices(graph, {}, set())),
    )


def _matrices(graph: Bytes, outer: Sources, counted: set[tuple[str, ...]]) -> Iterator[GraphMatrix]:
    """The matrices in the order of the nodes, subgraphs included. `outer`: what the graphs around this one have. Adds
    to `counted` what it counts."""
    sources = {**outer, **{name: [read_tensor(message)] for name, message in initializers_of(graph).items()}}
    for node in nodes_of(graph):
        operator, read = node.operator, node.inputs
        constants = [tensor for name in read for tensor in sources.get(name, ())]
        if operator in PASSING_ON and read and read[0] in sources:
            sources |= dict.fromkeys(node.outputs, constants)
        elif constants and max(tensor.elements for tensor in constants) >= SMALL:
            yield _matrix(node, operator, constants, counted)
        for subgraph in node.subgraphs:
            yield from _matrices(subgraph, sources, counted)


def _matrix(node: Node, operator: str, constants: Sequence[Tensor], counted: set[tuple[str, ...]]) -> GraphMatrix:
    fresh = {tensor.storage: tensor for tensor in constants if tensor.storage not in counted}
    counted.update(fresh)
    largest = max(constants, key=lambda tensor: tensor.elements)
    return GraphMatrix(
        node=node.name,
        operator=operator,
        scheme=_scheme(node, operator, constants, largest),
        shape=largest.dims,
        bytes=sum(tensor.elements * BITS.get(tensor.data_type, 8) // 8 for tensor in fresh.values()),
    )


def _scheme(node: Node, operator: str, constants: Sequence[Tensor], largest: Tensor) -> str:
    if operator in ("MatMulNBits", "GatherBlockQuantized"):
        numbers = node.numbers
        zero_points = ", zero points" if any(node.inputs[3:4]) else ""
        return f"{numbers.get('bits') or 4}-bit blocks of {numbers.get('block_size') or 128}{zero_points}"
    return DTYPES.get(largest.data_type, f"type {largest.data_type}")
