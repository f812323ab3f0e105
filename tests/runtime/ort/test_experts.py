"""Mixtures of experts as one operator, beside the same graph with a step for each layer of each expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgellm.errors import PackageCorruptError, ProviderError
from edgellm.ort import kernels
from edgellm.ort.kernels import library, with_kernels
from edgellm.ort.loaded_graph import LoadedGraph
from kernel_checks import same_bits, wrong_from_threads

Floats = npt.NDArray[np.float32]
FOUND = library()
SETS = () if FOUND is None else FOUND.instruction_sets
MICROSOFT = "com.microsoft"
ALIGNMENT = 4096
LIMIT = 0.75
ACTIVATIONS = {
    "silu": helper.make_node("QuickGelu", ["g"], ["a"], domain=MICROSOFT, alpha=1.0),
    "quick_gelu": helper.make_node("QuickGelu", ["g"], ["a"], domain=MICROSOFT),
    "gelu": helper.make_node("Gelu", ["g"], ["a"], domain=MICROSOFT),
    "gelu_tanh": helper.make_node("FastGelu", ["g"], ["a"], domain=MICROSOFT),
    "relu": helper.make_node("Relu", ["g"], ["a"]),
}
pytestmark = pytest.mark.skipif(FOUND is None, reason="edgellm-kernels is not installed")


@dataclass(frozen=True)
class Matrix:
    bits: int = 8
    block: int = 32
    has_zeros: bool = False


@dataclass(frozen=True)
class Shape:
    """`matrices`: gate, up and down of one expert after the other, again from the start where there are fewer."""

    hidden: int = 64
    size: int = 48
    matrices: Sequence[tuple[Matrix, Matrix, Matrix]] = ((Matrix(), Matrix(), Matrix()),)
    experts: int = 4
    act: str = "silu"
    has_bias: bool = False
    clamped: bool = False
    seed: int = 0


class Mixture:
    """Its graph as edgellm exports it: weights in a file beside it, biases inside."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.rng = shape, np.random.default_rng(shape.seed)
        self.nodes: list[NodeProto] = []
        self.stored: dict[str, npt.NDArray[Any]] = {}
        self.inline: dict[str, npt.NDArray[Any]] = {}
        parts = [f"part{i}" for i in range(shape.experts)]
        self.nodes.append(helper.make_node("Split", ["x", "sizes"], parts, "split", axis=1))
        for i, part in enumerate(parts):
            self._expert(part, i)
        self.nodes.append(helper.make_node("Concat", [f"d{i}" for i in range(shape.experts)], ["y"], "concat", axis=1))

    def _expert(self, x: str, i: int) -> None:
        s = self.shape
        gate, up, down = s.matrices[i % len(s.matrices)]
        self._layer(x, f"g{i}", gate, s.hidden, s.size)
        self._layer(x, f"u{i}", up, s.hidden, s.size)
        activation = NodeProto()
        activation.CopyFrom(ACTIVATIONS[s.act])
        activation.input[0], activation.output[0] = f"g{i}", f"a{i}"
        up_end = f"u{i}"
        if s.clamped:
            self.inline |= {n: np.array(v, np.float32) for n, v in (("high", LIMIT), ("low", -LIMIT), ("one", 1.0))}
            self.nodes += [
                helper.make_node("Min", [f"g{i}", "high"], [f"m{i}"]),
                helper.make_node("Clip", [f"u{i}", "low", "high"], [f"c{i}"]),
                helper.make_node("Add", [f"c{i}", "one"], [f"o{i}"]),
            ]
            activation.input[0], up_end = f"m{i}", f"o{i}"
        self.nodes += [activation, helper.make_node("Mul", [f"a{i}", up_end], [f"p{i}"])]
        self._layer(f"p{i}", f"d{i}", down, s.size, s.hidden)

    def _layer(self, x: str, y: str, m: Matrix, depth: int, columns: int) -> None:
        blocks, scale = -(-depth // m.block), 0.5 / 2**m.bits
        arrays: dict[str, npt.NDArray[Any]] = {
            f"{y}.w": self.rng.integers(0, 256, (columns, blocks, m.block * m.bits // 8), np.uint8),
            f"{y}.s": self.rng.uniform(scale, 4 * scale, (columns, blocks)).astype(np.float32),
        }
        inputs = [x, *arrays, "", "", ""]
        if m.has_zeros:
            inputs[3] = f"{y}.z"
            arrays[f"{y}.z"] = self.rng.integers(
                0, 256, (columns, blocks if m.bits == 8 else (blocks + 1) // 2), np.uint8
            )
        self.stored |= arrays
        if self.shape.has_bias:
            inputs[5] = f"{y}.b"
            self.inline[f"{y}.b"] = self.rng.normal(size=columns).astype(np.float32)
        while not inputs[-1]:
            del inputs[-1]
        self.nodes.append(
            helper.make_node(
                "MatMulNBits", inputs, [y], f"layer {y}", domain=MICROSOFT, K=depth, N=columns, bits=m.bits,
                block_size=m.block, accuracy_level=4,
            )
        )  # fmt: skip

    def model(self, folder: Path, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
        """Its weights are written to `folder`."""
        tensors, data = [numpy_helper.from_array(array, name) for name, array in self.inline.items()], bytearray()
        for name, array in self.stored.items():
            tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.data"), ("offset", len(data)), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            data += array.tobytes() + bytes(-array.nbytes % ALIGNMENT)
            tensors.append(tensor)
        (folder / "w.data").write_bytes(data)
        ports = [
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "r", self.shape.hidden]),
             helper.make_tensor_value_info("sizes", TensorProto.INT64, [self.shape.experts])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        ]  # fmt: skip
        known = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "r", None]) for name in ("g0", "part1")]
        graph = helper.make_graph(self.nodes, "graph", *ports, tensors, value_info=known)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="edgellm")

    def save(self, folder: Path, outputs: Sequence[str] = ("y",)) -> Path:
        return saved(self.model(folder, outputs), folder)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    return folder / "graph.onnx"


def operators(path: Path) -> list[str]:
    exchanged = with_kernels(path)
    return [] if exchanged is None else [node.op_type for node in onnx.load_from_string(exchanged).graph.node]


def values(path: Path, x: Floats, sizes: Sequence[int], threads: int = 1) -> Floats:
    return run(LoadedGraph(path, threads=threads, spinning=False), x, sizes)


def run(graph: LoadedGraph, x: Floats, sizes: Sequence[int]) -> Floats:
    (found,) = graph.run({"x": x, "sizes": np.array(sizes, np.int64)}, ["y"])
    return np.asarray(found.numpy(), np.float32)


def apart(path: Path, x: Floats, sizes: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> Floats:
    """By an operator for each layer."""
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "with_experts", lambda model: model)
        assert operators(path)[0] == "Split"
        return values(path, x, sizes)


def some(rows: int, hidden: int, seed: int = 3) -> Floats:
    return np.random.default_rng(seed).normal(size=(1, rows, hidden)).astype(np.float32)


BLOCKS = st.sampled_from([16, 32, 64])
BITS = st.sampled_from([4, 8])


@st.composite
def experts(draw: Callable[[Any], Any]) -> tuple[Matrix, Matrix, Matrix]:
    block, zeros = draw(BLOCKS), st.booleans()
    gate, up = (Matrix(draw(BITS), block, draw(zeros)) for _ in range(2))
    return gate, up, Matrix(draw(BITS), draw(BLOCKS), draw(zeros))


SHAPES = st.builds(
    Shape,
    hidden=st.integers(1, 50).map(lambda n: 2 * n),
    size=st.integers(1, 50).map(lambda n: 2 * n),
    matrices=st.lists(experts(), min_size=1, max_size=4),
    act=st.sampled_from([*ACTIVATIONS]),
    has_bias=st.booleans(),
    clamped=st.booleans(),
    seed=st.integers(0, 99),
)
SIZES = st.lists(st.integers(0, 9), min_size=4, max_size=4)
FEW = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)  # fmt: skip


@given(shape=SHAPES, sizes=SIZES)
@FEW
def test_numbers_are_those_of_layers_apart(shape: Shape, sizes: list[int], tmp_path: Path, monkeypatch: Any) -> None:
    path, x = Mixture(shape).save(tmp_path), some(sum(sizes), shape.hidden)
    assert operators(path) == ["Experts"]
    found = {}
    for instruction_set in SETS:
        monkeypatch.setenv("EDGELLM_KERNELS", instruction_set)
        found[instruction_set] = values(path, x, sizes)
        assert same_bits(found[instruction_set], found[SETS[0]]), instruction_set
    monkeypatch.delenv("EDGELLM_KERNELS")
    expected = apart(path, x, sizes, monkeypatch)
    joined = not shape.clamped and all(gate.bits == up.bits for gate, up, _ in shape.matrices)
    if joined or shape.act == "relu":  # where a layer does not do its activation itself, ONNX Runtime does it
        assert same_bits(found[SETS[0]], expected)
    elif expected.size:  # whose rounding may decide between two of the 127 steps that down's input has
        assert np.abs(found[SETS[0]] - expected).max() <= 0.02 * np.abs(expected).max() + 1e-6


@pytest.mark.parametrize("clamped", [False, True])
def test_a_row_is_the_same_whatever_is_beside_it(clamped: bool, tmp_path: Path) -> None:
    """Alone, beside others of its expert, beside those of others; on two threads, in more than a group of rows."""
    shape = Shape(clamped=clamped, has_bias=True)
    path, sizes = Mixture(shape).save(tmp_path), [3, 0, 300, 17]
    x = some(sum(sizes), shape.hidden)
    whole = values(path, x, sizes, threads=2)
    graph, first = LoadedGraph(path, threads=1, spinning=False), 0
    for expert, count in enumerate(sizes):
        for row in (*range(first, first + min(count, 4)), *range(first + count - min(count, 2), first + count)):
            alone = [int(i == expert) for i in range(4)]
            assert same_bits(run(graph, x[:, row : row + 1], alone), whole[:, row : row + 1])
        first += count


@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_stay_in_their_row(value: float, clamped: bool, tmp_path: Path) -> None:
    path, sizes, x = Mixture(Shape(clamped=clamped)).save(tmp_path), [2, 3, 0, 1], some(6, 64)
    clean = values(path, x, sizes)
    x[0, 3, 7] = value
    found = values(path, x, sizes)
    assert np.isnan(found[0, 3]).all()
    assert same_bits(np.delete(found, 3, 1), np.delete(clean, 3, 1))


def test_a_clamped_gate(tmp_path: Path) -> None:
    """Numbers are far beyond the limit on both sides; without it they would be far from what is expected."""
    shape = Shape(clamped=True, act="quick_gelu", experts=1)
    mixture = Mixture(shape)
    path, x = mixture.save(tmp_path), 20 * some(9, 64)
    gate, up = (_floats(mixture.stored, name, x) for name in ("g0", "u0"))
    gate, up = np.minimum(gate, LIMIT), np.clip(up, -LIMIT, LIMIT) + 1
    expected = _floats(mixture.stored, "d0", up * gate / (1 + np.exp(-1.702 * gate)))
    # Rounded activations are 1% off where nothing is clamped; a gate near 0 moves by more of itself than a large one.
    assert np.abs(values(path, x, [9]) - expected).max() < 0.1 * np.abs(expected).max()
    assert (
        np.abs(values(Mixture(replace(shape, clamped=False)).save(tmp_path), x, [9])).max() > 5 * np.abs(expected).max()
    )


def _floats(stored: dict[str, npt.NDArray[Any]], name: str, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """x through a layer of 8 bits and blocks of 32, in float64."""
    levels, scales = stored[f"{name}.w"].astype(np.float64) - 128, stored[f"{name}.s"]
    weight = (levels * scales[..., None]).reshape(len(levels), -1)[:, : x.shape[-1]]
    return np.asarray(x @ weight.T)


def test_many_threads_share_a_graph(tmp_path: Path) -> None:
    graph = LoadedGraph(Mixture(Shape()).save(tmp_path), threads=2)
    rows = [
        (some(sum(sizes), 64, seed), sizes) for seed, sizes in enumerate([[1, 0, 0, 0], [0, 5, 9, 2], [40, 0, 1, 1]])
    ]
    expected = [run(graph, *each) for each in rows]
    assert not wrong_from_threads(lambda i: run(graph, *rows[i]), expected)


@pytest.mark.parametrize("sizes", [[1, 2, 0, 0], [5, 0, 0, 0], [5, -1, 0, 0]])
def test_sizes_that_are_not_those_of_the_rows_are_refused(sizes: list[int], tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="sizes do not add up to the rows"):
        values(Mixture(Shape()).save(tmp_path), some(4, 64), sizes)


def _edit(name: str) -> Callable[[onnx.GraphProto], None]:
    def nodes(graph: onnx.GraphProto) -> dict[str, NodeProto]:
        return {node.output[0]: node for node in graph.node}

    def swap(graph: onnx.GraphProto) -> None:
        concat = nodes(graph)["y"]
        concat.input[:] = [concat.input[1], concat.input[0], *concat.input[2:]]

    def axis(graph: onnx.GraphProto) -> None:
        nodes(graph)["y"].attribute[0].i = 0

    def same_twice(graph: onnx.GraphProto) -> None:
        nodes(graph)["p0"].input[1] = "a0"

    def accuracy(graph: onnx.GraphProto) -> None:
        next(a for a in nodes(graph)["g2"].attribute if a.name == "accuracy_level").i = 0

    def other_gate(graph: onnx.GraphProto) -> None:
        nodes(graph)["a1"].attribute[0].f = 1.5

    def other_step(graph: onnx.GraphProto) -> None:
        nodes(graph)["a1"].op_type, nodes(graph)["a1"].domain = "Sigmoid", ""
        del nodes(graph)["a1"].attribute[:]

    def other_x(graph: onnx.GraphProto) -> None:
        nodes(graph)["u1"].input[0] = "part0"

    def activated_outside(graph: onnx.GraphProto) -> None:
        graph.node.insert(1, helper.make_node("Abs", ["part0"], ["outside"]))

    edits = (swap, axis, same_twice, accuracy, other_gate, other_step, other_x, activated_outside)
    return {edit.__name__: edit for edit in edits}[name]


@pytest.mark.parametrize(
    "name", ["swap", "axis", "same_twice", "accuracy", "other_gate", "other_step", "other_x", "activated_outside"]
)
def test_steps_that_mean_something_else_stay(name: str, tmp_path: Path) -> None:
    model = Mixture(Shape()).model(tmp_path)
    _edit(name)(model.graph)
    found = operators(saved(model, tmp_path))
    assert "Split" in found
    assert "Experts" not in found


@pytest.mark.parametrize("constant", ["high", "low", "one"])
def test_another_clamp_stays(constant: str, tmp_path: Path) -> None:
    mixture = Mixture(Shape(clamped=True))
    mixture.inline[constant] = np.array(0.5, np.float32)
    assert "Experts" not in operators(mixture.save(tmp_path))


@pytest.mark.parametrize("kept", ["g1", "p2", "d3", "part0"])
def test_what_is_read_elsewhere_stays(kept: str, tmp_path: Path) -> None:
    assert "Experts" not in operators(Mixture(Shape()).save(tmp_path, ["y", kept]))


def test_values_that_graphs_inside_may_read_stay(tmp_path: Path) -> None:
    model = Mixture(Shape()).model(tmp_path)
    inner = helper.make_graph(
        [helper.make_node("Identity", ["g1"], ["i"])], "inner", [], [helper.make_value_info("i", onnx.TypeProto())]
    )
    model.graph.node.append(helper.make_node("If", ["condition"], ["z"], then_branch=inner, else_branch=inner))
    assert "Experts" not in operators(saved(model, tmp_path))


def test_weights_in_the_graph_or_in_two_files_stay(tmp_path: Path) -> None:
    mixture = Mixture(Shape())
    model = mixture.model(tmp_path)
    tensor = next(each for each in model.graph.initializer if each.name == "g1.w")
    next(entry for entry in tensor.external_data if entry.key == "location").value = "other.data"
    assert "Experts" not in operators(saved(model, tmp_path))
    mixture.inline, mixture.stored = mixture.inline | mixture.stored, {}
    (tmp_path / "w.data").write_bytes(b"")
    assert "Experts" not in operators(mixture.save(tmp_path))


def test_weights_of_another_size_are_onnx_runtimes_to_name(tmp_path: Path) -> None:
    model = Mixture(Shape()).model(tmp_path)
    tensor = next(each for each in model.graph.initializer if each.name == "g1.w")
    next(entry for entry in tensor.external_data if entry.key == "length").value = "1"
    assert "Experts" not in operators(saved(model, tmp_path))
    with pytest.raises(PackageCorruptError):
        LoadedGraph(saved(model, tmp_path), threads=1)


def test_weights_between_two_floats_stay(tmp_path: Path) -> None:
    model = Mixture(Shape()).model(tmp_path)
    tensor = next(each for each in model.graph.initializer if each.name == "g1.s")
    place = next(entry for entry in tensor.external_data if entry.key == "offset")
    place.value = str(int(place.value) + 4)
    assert "Experts" in operators(saved(model, tmp_path))
    place.value = str(int(place.value) + 2)
    assert "Experts" not in operators(saved(model, tmp_path))


def test_a_file_that_is_too_short_is_corrupt(tmp_path: Path) -> None:
    path = Mixture(Shape()).save(tmp_path)
    (tmp_path / "w.data").write_bytes((tmp_path / "w.data").read_bytes()[:-ALIGNMENT])
    with pytest.raises(PackageCorruptError):
        LoadedGraph(path, threads=1)


def test_a_weight_that_others_read_stays_in_the_graph(tmp_path: Path) -> None:
    model = Mixture(Shape()).model(tmp_path)
    model.graph.node.append(helper.make_node("Identity", ["g0.s"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert sorted(operators(saved(model, tmp_path))) == ["Experts", "Identity"]
    graph = LoadedGraph(tmp_path / "graph.onnx", threads=1)
    found = graph.run({"x": some(1, 64), "sizes": np.array([1, 0, 0, 0])}, ["y", "z"])
    assert found[1].numpy().shape == (48, 2)


def test_two_mixtures_of_which_one_fits(tmp_path: Path) -> None:
    first, second = Mixture(Shape()), Mixture(replace(Shape(), seed=1))
    for node in second.nodes:
        for names in (node.input, node.output):
            names[:] = [name if name in ("", "sizes") else "y" if name == "x" else f"second.{name}" for name in names]
    first.nodes += second.nodes
    first.stored |= {f"second.{name}": array for name, array in second.stored.items()}
    model = first.model(tmp_path, ["second.y"])
    assert operators(saved(model, tmp_path)) == ["Experts", "Experts"]
    next(node for node in model.graph.node if node.output[0] == "second.a0").attribute[0].f = 2.0
    assert operators(saved(model, tmp_path)).count("Experts") == 1
