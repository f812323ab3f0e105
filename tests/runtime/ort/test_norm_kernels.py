"""Norms beside their definition in float64 and beside ONNX Runtime's own operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgellm.errors import EdgellmError
from edgellm.ort.kernels import library, with_kernels
from edgellm.ort.loaded_graph import LoadedGraph
from kernel_checks import same_bits, wrong_from_threads

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
FOUND = library()
SETS = () if FOUND is None else FOUND.instruction_sets
pytestmark = pytest.mark.skipif(FOUND is None, reason="edgellm-kernels is not installed")
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Norm:
    """A norm of rows. `centers`: it takes their mean away. `scales`: a Mul by constants reads it, too."""

    size: int = 48
    centers: bool = True
    bias: bool = True
    scales: bool = False
    epsilon: float = 1e-5
    axis: int = -1

    def arrays(self) -> dict[str, Floats]:
        rng = np.random.default_rng(self.size)
        names = ["weight", *(["bias"] if self.bias and self.centers else []), *(["scale"] if self.scales else [])]
        return {name: rng.normal(1, 0.5, self.size).astype(np.float32) for name in names}

    def save(self, path: Path, mul: tuple[str, str] = ("y", "scale")) -> Path:
        arrays = self.arrays()
        given = ["x", "weight", *(["bias"] if "bias" in arrays else [])]
        kind = "LayerNormalization" if self.centers else "SimplifiedLayerNormalization"
        nodes = [helper.make_node(kind, given, ["y"], "norm", axis=self.axis, epsilon=self.epsilon)]
        if self.scales:
            nodes.append(helper.make_node("Mul", mul, ["z"], "mul"))
        outputs = [node.output[0] for node in nodes]
        ports = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
            for names in (["x"], outputs)
        ]
        weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = helper.make_graph(nodes, "graph", *ports, weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
        return path

    def expected(self, x: Floats) -> list[Doubles]:
        arrays = {name: array.astype(np.float64) for name, array in self.arrays().items()}
        centred = x - x.mean(-1, keepdims=True, dtype=np.float64) * self.centers
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(self.epsilon)) * arrays["weight"]
        y = y + arrays.get("bias", 0)
        return [y, y * arrays["scale"]] if self.scales else [y]


NORMS = st.builds(Norm, size=st.integers(2, 300), centers=st.booleans(), bias=st.booleans(), scales=st.booleans())


def numbers(norm: Norm, rows: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng((seed, rows, norm.size))
    return (rng.normal(rng.normal(), 2, (1, rows, norm.size)) * 10.0 ** rng.integers(-2, 3)).astype(np.float32)


def run(path: Path, norm: Norm, x: Floats, *, threads: int = 1, kernels: bool = True) -> list[Floats]:
    graph = LoadedGraph(path, threads=threads, spinning=False, kernels="auto" if kernels else "off")
    found = graph.run({"x": x}, ["y", "z"] if norm.scales else ["y"])
    return [np.array(each.numpy(), np.float32) for each in found]


def operators(path: Path) -> list[tuple[str, str]]:
    exchanged = with_kernels(path)
    model = onnx.load(path) if exchanged is None else onnx.load_from_string(exchanged)
    return [(node.domain, node.op_type) for node in model.graph.node]


@given(norm=NORMS, rows=st.integers(1, 9), seed=st.integers(0, 99))
@FEW
def test_numbers_are_right_and_the_same_on_every_instruction_set(
    norm: Norm, rows: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, x = norm.save(tmp_path / "norm.onnx"), numbers(norm, rows, seed)
    assert operators(path) == [("edgellm", "LayerNorm" if norm.centers else "RMSNorm")]
    expected, largest = norm.expected(x), np.abs(x).max(-1, keepdims=True)
    first: list[Floats] = []
    for name in SETS:
        monkeypatch.setenv("EDGELLM_KERNELS", name)
        found = run(path, norm, x)
        first = first or found
        assert all(same_bits(a, b) for a, b in zip(found, first, strict=True)), name
    # Sums of at most 300 numbers, 16 side by side: 23 roundings of the largest, enlarged as the norm enlarges all.
    spread = np.sqrt(((x - x.mean(-1, keepdims=True) * norm.centers) ** 2).mean(-1, keepdims=True) + 1e-5)
    for ours, right in zip(first, expected, strict=True):
        assert (np.abs(ours - right) <= 1e-6 * np.abs(right) + 24 * 2.0**-24 * largest / spread * 2.5 + 1e-6).all()


@given(norm=NORMS, rows=st.integers(1, 5))
@FEW
def test_they_mean_what_onnx_runtimes_operators_mean(norm: Norm, rows: int, tmp_path: Path) -> None:
    path, x = norm.save(tmp_path / "norm.onnx"), numbers(norm, rows)
    for ours, theirs in zip(run(path, norm, x), run(path, norm, x, kernels=False), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, float(np.abs(theirs).max()))


@pytest.mark.parametrize("norm", [Norm(384, scales=True), Norm(576, centers=False)], ids=["LayerNorm", "RMSNorm"])
def test_a_row_is_the_same_whatever_is_beside_it(norm: Norm, tmp_path: Path) -> None:
    path, x = norm.save(tmp_path / "norm.onnx"), numbers(norm, 200)
    x[0, 7, 3], x[0, 90, 5] = np.nan, np.inf
    whole = run(path, norm, x, threads=3)
    for first, last in ((0, 1), (1, 60), (60, 200)):
        part = run(path, norm, x[:, first:last])
        assert all(same_bits(a[:, first:last], b) for a, b in zip(whole, part, strict=True))
    for found in whole:
        assert [row for row in range(200) if not np.isfinite(found[0, row]).all()] == [7, 90]


def test_many_threads_share_a_graph(tmp_path: Path) -> None:
    norm = Norm(384, scales=True)
    path = norm.save(tmp_path / "norm.onnx")
    given = [numbers(norm, 1 + index, index) for index in range(4)]
    graph = LoadedGraph(path, threads=2, spinning=False)

    def compute(index: int) -> Floats:
        return np.concatenate([np.array(each.numpy()) for each in graph.run({"x": given[index]}, ["y", "z"])])

    assert not wrong_from_threads(compute, [np.concatenate(run(path, norm, x)) for x in given])


@pytest.mark.parametrize(
    ("norm", "mul"),
    [(Norm(scales=True), ("scale", "y")), (Norm(scales=True), ("y", "weight")), (Norm(scales=True), ("y", "y"))],
    ids=["swapped", "by its weight", "by itself"],
)
def test_what_multiplies_a_norm(norm: Norm, mul: tuple[str, str], tmp_path: Path) -> None:
    path, x = norm.save(tmp_path / "norm.onnx", mul), numbers(norm, 3)
    assert len(operators(path)) == (2 if mul == ("y", "y") else 1)
    for ours, theirs in zip(run(path, norm, x), run(path, norm, x, kernels=False), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_norms_that_mean_something_else_stay(tmp_path: Path) -> None:
    assert operators(Norm(axis=1).save(tmp_path / "axis.onnx")) == [("", "LayerNormalization")]
    model = onnx.load(Norm().save(tmp_path / "norm.onnx"))
    model.graph.node[0].output.append("mean")
    onnx.save(model, tmp_path / "mean.onnx")
    assert operators(tmp_path / "mean.onnx") == [("", "LayerNormalization")]
    weight = model.graph.initializer[0]
    model.graph.initializer.remove(weight)
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [48]))
    onnx.save(model, tmp_path / "weight.onnx")
    assert operators(tmp_path / "weight.onnx") == [("", "LayerNormalization")]


@pytest.mark.parametrize("name", ["weight", "bias", "scale"])
def test_other_sizes_are_errors(name: str, tmp_path: Path) -> None:
    norm = Norm(48, scales=True)
    model = onnx.load(norm.save(tmp_path / "norm.onnx"))
    (index,) = [i for i, each in enumerate(model.graph.initializer) if each.name == name]
    model.graph.initializer[index].CopyFrom(numpy_helper.from_array(np.ones(40, np.float32), name))
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(EdgellmError):
        run(tmp_path / "wrong.onnx", norm, numbers(norm, 2))
