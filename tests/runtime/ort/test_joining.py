"""Layers that do an activation, a gate or a residual in the same pass, beside the same graph whose steps stay apart
because their values are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgellm.errors import PackageCorruptError
from edgellm.ort.kernels import library, with_kernels
from edgellm.ort.loaded_graph import LoadedGraph
from kernel_checks import same_bits

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
FOUND = library()
SETS = () if FOUND is None else FOUND.instruction_sets
MICROSOFT = "com.microsoft"
pytestmark = pytest.mark.skipif(FOUND is None, reason="edgellm-kernels is not installed")


def erf_gelu(x: Doubles) -> Doubles:
    return np.asarray([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.ravel()]).reshape(x.shape)


def swish(alpha: float) -> Callable[[Doubles], Doubles]:
    return lambda x: x * np.exp(-np.logaddexp(0, -np.float64(np.float32(alpha)) * x))


# The steps, and what they are in float64.
ACTIVATIONS: dict[str, tuple[NodeProto, Callable[[Doubles], Doubles]]] = {
    "silu": (helper.make_node("QuickGelu", ["g"], ["a"], domain=MICROSOFT, alpha=1.0), swish(1.0)),
    "quick_gelu": (helper.make_node("QuickGelu", ["g"], ["a"], domain=MICROSOFT), swish(1.702)),
    "gelu": (helper.make_node("Gelu", ["g"], ["a"], domain=MICROSOFT), erf_gelu),
    "gelu_tanh": (
        helper.make_node("FastGelu", ["g"], ["a"], domain=MICROSOFT),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "relu": (helper.make_node("Relu", ["g"], ["a"]), lambda x: np.maximum(x, 0)),
}


@dataclass(frozen=True)
class Shape:
    depth: int = 64
    columns: int = 48
    bits: int = 8
    block: int = 32
    has_bias: bool = True
    seed: int = 0


def layer(shape: Shape, name: str, output: str, seed: int) -> tuple[NodeProto, list[onnx.TensorProto]]:
    rng, blocks = np.random.default_rng((shape.seed, seed)), -(-shape.depth // shape.block)
    scale = 0.5 / 2**shape.bits
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{name}.w": rng.integers(0, 256, (shape.columns, blocks, shape.block * shape.bits // 8), np.uint8),
        f"{name}.s": rng.uniform(scale, 4 * scale, (shape.columns, blocks)).astype(np.float32),
    }
    if shape.has_bias:
        arrays[f"{name}.b"] = rng.normal(size=shape.columns).astype(np.float32)
    inputs = ["x", f"{name}.w", f"{name}.s", *(["", "", f"{name}.b"] if shape.has_bias else [])]
    node = helper.make_node(
        "MatMulNBits", inputs, [output], name, domain=MICROSOFT, K=shape.depth, N=shape.columns, bits=shape.bits,
        block_size=shape.block, accuracy_level=4,
    )  # fmt: skip
    return node, [numpy_helper.from_array(array, key) for key, array in arrays.items()]


@dataclass(frozen=True)
class Graph:
    """`kept`: values that are outputs too, so that the steps which make them stay."""

    nodes: Sequence[NodeProto]
    weights: Sequence[onnx.TensorProto]
    inputs: Sequence[str] = ("x",)
    producer: str = "edgellm"

    def save(self, path: Path, kept: Sequence[str] = ()) -> Path:
        ports = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "l", "n"]) for name in names]
            for names in (self.inputs, ["y", *kept])
        ]
        graph = helper.make_graph(self.nodes, "graph", *ports, self.weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name=self.producer), path)
        return path


def gated(shape: Shape, activation: str, swapped: bool = False) -> Graph:
    (first, a), (second, b) = layer(shape, "gate", "g", 1), layer(shape, "up", "u", 2)
    product = helper.make_node("Mul", ["u", "a"] if swapped else ["a", "u"], ["y"], "product")
    nodes = [second, first] if swapped else [first, second]
    return Graph([*nodes, ACTIVATIONS[activation][0], product], [*a, *b])


def activated(shape: Shape, activation: str) -> Graph:
    first, weights = layer(shape, "first", "g", 1)
    end = NodeProto()
    end.CopyFrom(ACTIVATIONS[activation][0])
    end.output[0] = "y"
    return Graph([first, end], weights)


def with_residual(shape: Shape, producer: str = "edgellm") -> Graph:
    """y = layer(x) + |r|."""
    first, weights = layer(shape, "first", "g", 1)
    other = helper.make_node("Abs", ["r"], ["m"], "other")
    return Graph([other, first, helper.make_node("Add", ["m", "g"], ["y"], "sum")], weights, ("x", "r"), producer)


def operators(path: Path) -> list[str]:
    exchanged = with_kernels(path)
    assert exchanged is not None
    return [node.op_type for node in onnx.load_from_string(exchanged).graph.node]


def values(path: Path, x: Floats, names: Sequence[str] = ("y",), threads: int = 1, **more: Floats) -> list[Floats]:
    found = LoadedGraph(path, threads=threads, spinning=False).run({"x": x, **more}, list(names))
    return [np.asarray(each.numpy(), np.float32) for each in found]


def some(rows: int, depth: int, seed: int = 3) -> Floats:
    return np.random.default_rng(seed).normal(size=(1, rows, depth)).astype(np.float32)


SHAPES = st.builds(
    Shape,
    depth=st.integers(1, 50).map(lambda n: 2 * n),
    columns=st.integers(1, 100),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64]),
    has_bias=st.booleans(),
    seed=st.integers(0, 99),
)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(shape=SHAPES, rows=st.integers(1, 9), swapped=st.booleans())
@FEW
def test_gates(name: str, shape: Shape, rows: int, swapped: bool, tmp_path: Path, monkeypatch: Any) -> None:
    graph, x = gated(shape, name, swapped), some(rows, shape.depth)
    assert operators(graph.save(tmp_path / "joined.onnx")) == ["BlockLinear"]
    found = {}
    for instruction_set in SETS:
        monkeypatch.setenv("EDGELLM_KERNELS", instruction_set)
        (found[instruction_set],) = values(tmp_path / "joined.onnx", x)
        assert same_bits(found[instruction_set], found[SETS[0]]), instruction_set
    gate, up = values(graph.save(tmp_path / "apart.onnx", ["g", "u"]), x, ["g", "u"])
    expected = ACTIVATIONS[name][1](gate.astype(np.float64)) * up
    size = np.abs(gate.astype(np.float64) * up)  # GELU by tanh takes small numbers from large ones
    assert (np.abs(found[SETS[0]] - expected) <= 1e-6 * np.abs(expected) + 3e-7 * size + 1e-37).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, tmp_path: Path) -> None:
    """From where they are nothing to where they are the number itself; all sums of one row are the same number."""
    shape = Shape(columns=1, has_bias=False)
    graph, x = activated(shape, name), np.linspace(-400, 400, 4001, dtype=np.float32)[:, None] * some(1, 64)[0]
    assert operators(graph.save(tmp_path / "joined.onnx")) == ["BlockLinear"]
    (sums,) = values(graph.save(tmp_path / "apart.onnx", ["g"]), x[None], ["g"])
    (found,) = values(tmp_path / "joined.onnx", x[None])
    assert sums.min() < -100
    assert sums.max() > 100
    expected = ACTIVATIONS[name][1](sums.astype(np.float64))
    assert (np.abs(found - expected) <= 1e-6 * np.abs(expected) + 3e-7 * np.abs(sums)).all()


@given(shape=SHAPES, rows=st.integers(1, 9))
@FEW
def test_residuals(shape: Shape, rows: int, tmp_path: Path) -> None:
    graph, x, r = with_residual(shape), some(rows, shape.depth), some(rows, shape.columns, 4)
    assert operators(graph.save(tmp_path / "joined.onnx")) == ["Abs", "BlockLinear"]
    (found,) = values(tmp_path / "joined.onnx", x, r=r)
    (sums,) = values(graph.save(tmp_path / "apart.onnx", ["g"]), x, ["g"], r=r)
    assert same_bits(found, sums + np.abs(r))


def test_a_row_is_the_same_whatever_is_beside_it(tmp_path: Path) -> None:
    shape = Shape(depth=96, columns=200)
    path, x = gated(shape, "silu").save(tmp_path / "joined.onnx"), some(203, 96)
    (whole,) = values(path, x, threads=2)
    for start, stop in ((0, 1), (1, 8), (8, 203)):
        (part,) = values(path, np.ascontiguousarray(x[:, start:stop]))
        assert same_bits(part, whole[:, start:stop])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("instruction_set", SETS)
def test_numbers_that_are_none(name: str, instruction_set: str, tmp_path: Path, monkeypatch: Any) -> None:
    """They make their row NaN, with an activation as without."""
    monkeypatch.setenv("EDGELLM_KERNELS", instruction_set)
    path, x = gated(Shape(), name).save(tmp_path / "joined.onnx"), some(5, 64)
    (clean,) = values(path, x)
    x[0, 2, 7] = np.inf
    (found,) = values(path, x)
    assert np.isnan(found[0, 2]).all()
    assert same_bits(np.delete(found, 2, 1), np.delete(clean, 2, 1))


def test_sums_of_other_programs_graphs_stay(tmp_path: Path) -> None:
    """What they add may have another shape."""
    path = with_residual(Shape(), producer="other").save(tmp_path / "graph.onnx")
    assert operators(path) == ["Abs", "BlockLinear", "Add"]
    (found,) = values(path, some(3, 64), r=some(1, 1))
    assert found.shape == (1, 3, 48)


@pytest.mark.parametrize("kept", ["g", "u", "a"])
def test_what_is_read_elsewhere_stays(kept: str, tmp_path: Path) -> None:
    path = gated(Shape(), "silu").save(tmp_path / "graph.onnx", [kept])
    assert "Mul" in operators(path)
    both = values(path, some(3, 64), ["y", kept])
    assert [each.shape for each in both] == [(1, 3, 48)] * 2


def test_layers_of_other_sizes_stay_apart(tmp_path: Path) -> None:
    (first, a), (second, b) = layer(Shape(), "gate", "g", 1), layer(Shape(block=16), "up", "u", 2)
    product = helper.make_node("Mul", ["a", "u"], ["y"], "product")
    graph = Graph([first, second, ACTIVATIONS["silu"][0], product], [*a, *b])
    assert operators(graph.save(tmp_path / "graph.onnx")) == ["BlockLinear", "BlockLinear", "Mul"]


def test_a_layer_times_itself_is_no_gate(tmp_path: Path) -> None:
    first, weights = layer(Shape(), "gate", "g", 1)
    nodes = [first, ACTIVATIONS["silu"][0], helper.make_node("Mul", ["a", "a"], ["y"], "product")]
    assert operators(Graph(nodes, weights).save(tmp_path / "graph.onnx")) == ["BlockLinear", "Mul"]


@pytest.mark.parametrize("inputs", [["m"], ["m", "g", "x"]])
def test_a_damaged_graph_is_onnx_runtimes_to_name(inputs: list[str], tmp_path: Path) -> None:
    graph = with_residual(Shape())
    graph.nodes[-1].input[:] = inputs
    with pytest.raises(PackageCorruptError):
        LoadedGraph(graph.save(tmp_path / "graph.onnx"), threads=1)


def test_attention_in_steps_is_not_exact(tmp_path: Path) -> None:
    """Nor is a graph without any: nothing is known of it."""
    first, weights = layer(Shape(), "first", "g", 1)
    softmax = Graph([first, helper.make_node("Softmax", ["g"], ["y"], "weights")], weights)
    for graph in (softmax, activated(Shape(), "silu")):
        found = LoadedGraph(graph.save(tmp_path / "graph.onnx"), threads=1)
        assert (found.kernels, found.is_exact) == (SETS[0], False)
