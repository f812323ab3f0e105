"""A thin builder over onnx-ir: named nodes, and initializers whose bytes are produced when the graph is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.types import Array
from edgellm_export.checkpoint.tensors import LazyTensor

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
SMALL_BYTES = 1024  # constants up to this size stay inside the .onnx file: shape inference must see them

Shape = Sequence[int | str]


@dataclass(frozen=True)
class Region:
    """The bytes of one stored array: written to the data file, read by one or more initializers."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Produced:
    """Regions filled together, piece by piece: `pieces()` yields one array per region, in order, along the first
    axis."""

    regions: tuple[Region, ...]
    pieces: Callable[[], Iterator[tuple[Array, ...]]]


@dataclass(frozen=True)
class Stored:
    """An initializer: `shape` may differ from its region's, and several initializers may share a region."""

    value: ir.Value
    region: Region


@dataclass(frozen=True)
class Projection:
    """The linear layer at the node `name`: x @ weight.T. `weight` is as it will be stored, before rounding. `origin`:
    the value whose channels may be scaled that `x` is, if any. `outer`: see Build.project. `share`: of the tokens, that
    go through it."""

    name: str
    x: ir.Value
    weight: LazyTensor
    origin: str | None
    outer: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class BuiltGraph:
    """A model whose stored initializers still need their bytes: `produced` fills the regions, `stored` reads them.
    `projections`: its linear layers, in order. `apart`: experts that have graphs of their own."""

    model: ir.Model
    stored: Sequence[Stored]
    produced: Sequence[Produced]
    projections: Sequence[Projection]
    apart: Sequence[Apart] = ()


@dataclass(frozen=True)
class Apart:
    """A mixture's `count` experts, outside of the graph. The graph gives tokens [1, n, hidden] sorted by expert, each
    as often as the `chosen` experts that it goes through, and how many each expert gets; it reads what they made of
    them. These are the names of its outputs `tokens` and `sizes`, and of its input `made`; `tokens` and `made` are the
    input and the output of an expert's graph, too. `build`: makes that, of a Material, for an expert by its number, and
    with what its linear layers read or without."""

    count: int
    chosen: int
    tokens: str
    sizes: str
    made: str
    build: Callable[[Any, int, bool], BuiltGraph]


class GraphBuilder:
    """Collects nodes and initializers. Values are ir.Value; names are the place in the model, /-separated."""

    def __init__(self, name: str) -> None:
        self._graph_name = name
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._inline: dict[str, ir.Value] = {}
        self._names: set[str] = set()
        self._shared: dict[str, tuple[ir.Value, ...]] = {}
        self.stored: dict[str, Stored] = {}
        self.produced: list[Produced] = []

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        value = ir.val(name, dtype, shape)
        self._inputs.append(value)
        return value

    def optional_input(self, name: str, default: Array) -> ir.Value:
        """A graph input that keeps `default` unless it is fed (ONNX: an initializer of the same name)."""
        value = self.input(name, ir.DataType.from_numpy(default.dtype), default.shape)
        value.const_value = ir.tensor(default, name=name)
        self._inline[name] = value
        return value

    def constant(self, name: str, array: Array) -> ir.Value:
        """A small array inside the .onnx file; the same name gives the same value."""
        if name not in self._inline:
            tensor = ir.tensor(np.array(array, order="C"), name=name)
            self._inline[name] = ir.val(name, const_value=tensor)
        return self._inline[name]

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 constant, shared by value."""
        return self.constant("/constants/ints/" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: int) -> ir.Value:
        """An int64 constant without dimensions, shared by value."""
        return self.constant(f"/constants/{value}", np.array(value, np.int64))

    def store(self, produced: Produced) -> tuple[ir.Value, ...]:
        """Initializers for the regions of `produced`, to be filled when the weights are written or loaded."""
        self.produced.append(produced)
        return tuple(self.view(region, region.name, region.shape) for region in produced.regions)

    def view(self, region: Region, name: str, shape: Sequence[int]) -> ir.Value:
        """Another initializer over the bytes of `region`: stored once, mapped twice."""
        if name in self.stored:
            return self.stored[name].value
        value = ir.val(name, ir.DataType.from_numpy(region.dtype), shape)
        self.stored[name] = Stored(value, region)
        return value

    def array(self, name: str, array: Array) -> ir.Value:
        """An array that is already computed (a norm's weight, a rotary table); the same name gives the same value."""
        if array.nbytes <= SMALL_BYTES:
            return self.constant(name, array)
        if name in self.stored:
            return self.stored[name].value
        region = Region(name, array.dtype, array.shape)
        return self.store(Produced((region,), lambda: iter([(array,)])))[0]

    def remember(self, key: str, values: tuple[ir.Value, ...]) -> None:
        """Keep values that several layers share."""
        self._shared[key] = values

    def lookup(self, key: str) -> tuple[ir.Value, ...] | None:
        return self._shared.get(key)

    def cast(self, value: ir.Value, dtype: np.dtype[Any], name: str) -> ir.Value:
        """The value cast to `dtype`; the same name gives the same value."""
        if name not in self._shared:
            self.remember(name, (self.op("Cast", value, name=name, to=int(ir.DataType.from_numpy(dtype))),))
        return self._shared[name][0]

    def op(self, op_type: str, *inputs: ir.Value | None, name: str, domain: str = "", **attributes: Any) -> ir.Value:
        return self.ops(op_type, *inputs, name=name, domain=domain, outputs=1, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: ir.Value | None, name: str, outputs: int, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """A node with several outputs, named `name`/output_0 and so on."""
        if name in self._names:
            raise AssertionError(f"two nodes are called {name}")
        self._names.add(name)
        values = [ir.Value(name=f"{name}/output_{i}") for i in range(outputs)]
        self._nodes.append(ir.node(op_type, inputs, attributes or None, domain=domain, outputs=values, name=name))
        return values

    def finish(self, outputs: Sequence[tuple[ir.Value, str, ir.DataType, Shape]]) -> ir.Graph:
        """The graph with these outputs: (value, name, dtype, shape). Stored initializers still lack their bytes."""
        for value, name, dtype, shape in outputs:
            value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        initializers = [*self._inline.values(), *(stored.value for stored in self.stored.values())]
        return ir.Graph(
            self._inputs,
            [value for value, *_ in outputs],
            nodes=self._nodes,
            initializers=initializers,
            opset_imports={"": OPSET, MICROSOFT: 1},
            name=self._graph_name,
        )


def as_model(graph: ir.Graph) -> ir.Model:
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="edgellm")
