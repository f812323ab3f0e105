"""The kernels beside whole numbers and plain sums, on each instruction set that this machine runs, and graphs in which
they take the place of ONNX Runtime's operators."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import edgellm
from edgellm.errors import OptionError, PackageCorruptError
from edgellm.ort.kernels import library, replaceable, with_kernels
from edgellm.ort.loaded_graph import LoadedGraph
from kernel_checks import same_bits, wrong_from_threads

Floats = npt.NDArray[np.float32]

Opener = Callable[..., LoadedGraph]

FOUND = library()
SETS = () if FOUND is None else FOUND.instruction_sets
pytestmark = pytest.mark.skipif(FOUND is None, reason="edgellm-kernels is not installed")


@dataclass(frozen=True)
class Layer:
    """A linear layer of random weights in blocks, of all bytes, of those in `bytes`, or of one `level`. `odd`: the last
    column is of all bytes."""

    depth: int
    columns: int
    bits: int = 8
    block: int = 32
    has_zeros: bool = False
    has_bias: bool = False
    seed: int = 0
    level: int | None = None
    bytes: tuple[int, ...] = tuple(range(256))
    odd: bool = False

    @property
    def blocks(self) -> int:
        return -(-self.depth // self.block)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As MatMulNBits takes them."""
        rng = np.random.default_rng(self.seed)
        zeros = (self.columns, self.blocks if self.bits == 8 else (self.blocks + 1) // 2)
        found: dict[str, npt.NDArray[Any]] = {
            "w": rng.choice(np.array(self.bytes, np.uint8), (self.columns, self.blocks, self.block * self.bits // 8)),
            "s": rng.uniform(0.001, 0.02, (self.columns, self.blocks)).astype(np.float32),
        }
        if self.level is not None:
            found["w"][:] = self.level
        if self.odd:
            found["w"][-1].flat = np.arange(found["w"][-1].size) % 256
        if self.has_zeros:
            found["z"] = rng.integers(0, 256, zeros, np.uint8)
        if self.has_bias:
            found["b"] = rng.normal(size=self.columns).astype(np.float32)
        return found

    def model(self, **edits: Any) -> onnx.ModelProto:
        arrays = self.arrays()
        names = ["x", "w", "s", "z" if self.has_zeros else "", "", "b" if self.has_bias else ""]
        sizes = {"K": self.depth, "N": self.columns, "bits": self.bits, "block_size": self.block}
        attributes = {**sizes, "accuracy_level": 4, **edits}
        node = helper.make_node("MatMulNBits", names, ["y"], "layer", domain="com.microsoft", **attributes)
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length", size])
            for name, size in (("x", self.depth), ("y", self.columns))
        ]
        constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = helper.make_graph([node], "layer", ports[:1], ports[1:], constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def expected(self, x: Floats) -> npt.NDArray[np.float64]:
        """Sums in float64 of what the numbers stand for."""
        return np.asarray(self._terms(x).sum(-1) + self.arrays().get("b", 0))

    def sizes(self, x: Floats) -> npt.NDArray[np.float64]:
        """The same of the magnitudes of what is added up."""
        return np.asarray(np.abs(self._terms(x)).sum(-1) + np.abs(self.arrays().get("b", 0)))

    def _terms(self, x: Floats) -> npt.NDArray[np.float64]:
        """[..., columns, blocks]; activations have 127 steps to their block's largest."""
        arrays = self.arrays()
        filled = np.zeros((*x.shape[:-1], self.blocks * self.block), np.float32)
        filled[..., : self.depth] = x
        blocks = filled.reshape(*x.shape[:-1], self.blocks, self.block)
        scales = np.abs(blocks).max(-1) / np.float32(127)
        with np.errstate(divide="ignore"):
            steps = np.where(scales > 0, np.float32(1) / scales, np.float32(0)).astype(np.float32)
        values = np.rint(np.clip(blocks * steps[..., None], -127, 127)).astype(np.int64)
        weights = self._levels(arrays["w"], self.block) - self._zeros(arrays)[..., None]
        sums = np.einsum("...bk,nbk->...nb", values, weights).astype(np.float64)
        return np.asarray(sums * arrays["s"].astype(np.float64) * scales[..., None, :].astype(np.float64))

    def _levels(self, stored: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int64]:
        if self.bits == 8:
            return stored.astype(np.int64)
        pairs = np.stack([stored & 15, stored >> 4], -1)
        return pairs.reshape(*stored.shape[:-1], -1)[..., :count].astype(np.int64)

    def _zeros(self, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        if "z" in arrays:
            return self._levels(arrays["z"], self.blocks)
        return np.full((self.columns, self.blocks), 1 << (self.bits - 1))


def run(graph: LoadedGraph, x: Floats) -> Floats:
    (found,) = graph.run({"x": x}, ["y"])
    return np.asarray(found.numpy(), np.float32)


def activations(rows: int, layer: Layer, seed: int = 1) -> Floats:
    """[1, rows, depth], of sizes from block to block; one block is all zeros."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(1, rows, layer.depth)) * np.exp2(rng.integers(-8, 8, (1, rows, 1)))).astype(np.float32)
    x[:, 0, : layer.block] = 0
    return x


E2M1 = tuple(128 + sign * each for sign in (-1, 1) for each in (0, 1, 2, 3, 4, 6, 8, 12))  # halves of its numbers
LAYERS = st.builds(
    Layer,
    bytes=st.one_of(
        st.just(tuple(range(256))),
        st.just(E2M1),
        st.lists(st.integers(0, 255), min_size=1, max_size=4).map(tuple),  # far from each other
        st.lists(st.integers(60, 187), min_size=1, max_size=40).map(tuple),  # near, more than 16 or fewer
    ),
    depth=st.integers(1, 200),
    columns=st.integers(1, 100),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64, 128]),
    has_zeros=st.booleans(),
    has_bias=st.booleans(),
    seed=st.integers(0, 99),
)


def test_many_threads_ask_what_there_is() -> None:
    import edgellm_kernels

    def ask(_: int) -> list[tuple[str, ...]]:
        return [edgellm_kernels.instruction_sets.__wrapped__() for _ in range(100)]  # without what is cached

    with ThreadPoolExecutor(4) as threads:
        assert {*chain.from_iterable(threads.map(ask, range(4)))} == {SETS}


CPUINFO = Path("/proc/cpuinfo")
FLAGS = {
    "avx2": {"avx2", "fma"},
    "avxvnni": {"avx2", "fma", "avx_vnni"},
    "avx512vnni": {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"},
    "neondot": {"asimddp"},
    "neoni8mm": {"asimddp", "i8mm"},
}


@pytest.mark.skipif(not CPUINFO.is_file(), reason="the system does not say what its processor has")
def test_all_that_the_processor_has_is_used() -> None:
    lines = CPUINFO.read_text().splitlines()
    flags = next(
        (set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), set()
    )
    assert {name for name, needed in FLAGS.items() if needed <= flags} == {*SETS} & FLAGS.keys()


@given(LAYERS, st.integers(1, 20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_are_right_and_the_same_on_every_instruction_set(opened: Opener, layer: Layer, rows: int) -> None:
    layer = replace(layer, depth=layer.depth + layer.depth % 2)  # two of four bits share a byte
    x, expected = activations(rows, layer), layer.expected(activations(rows, layer))
    found = {name: run(opened(layer, name), x) for name in SETS}
    # A float32 is rounded for the scales' product, for each block and for the bias, by half of its last bit.
    bound = layer.sizes(x) * 2.0**-24 * (layer.blocks + 2)
    assert np.all(np.abs(found["scalar"] - expected) <= bound)
    for name in SETS:
        assert same_bits(found[name], found["scalar"]), name


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("levels", [E2M1, (127, 128, 129), (0, 127), (128, 255), (60,)], ids=str)
def test_few_different_weights_give_the_bits_that_all_others_give(
    levels: tuple[int, ...], name: str, opened: Opener
) -> None:
    """They lie as places in a table, unless one column has others."""
    layer = Layer(300, 70, 8, 32, has_bias=True, bytes=levels)
    x = activations(9, layer)
    found, others = (run(opened(each, name), x) for each in (layer, replace(layer, odd=True)))
    assert same_bits(np.ascontiguousarray(found[..., :-1]), np.ascontiguousarray(others[..., :-1]))
    assert not same_bits(np.ascontiguousarray(found[..., -1:]), np.ascontiguousarray(others[..., -1:]))


@pytest.mark.parametrize("largest", [1e-30, 1e-37, 3e-38, 1e-40, 1e-45])
def test_numbers_too_small_for_steps_are_zeros(largest: float, opened: Opener) -> None:
    """Beside them, zeros stay zeros: not infinity times zero."""
    layer = Layer(128, 40, 8, 64)
    x = np.zeros((1, 2, layer.depth), np.float32)
    x[0, 0, 5], x[0, 1, 70] = largest, -largest
    arrays, blocks = layer.arrays(), x[0].reshape(2, 2, 64).astype(np.float64)
    levels = arrays["w"].astype(np.float64) - 128
    exact = np.einsum("rbk,nbk,nb->rn", blocks, levels, arrays["s"].astype(np.float64))
    for name in SETS:
        found = run(opened(layer, name), x)[0]
        assert np.abs(found - exact).max() <= np.abs(exact).max() * (0.01 if largest > 1e-35 else 1) + 1e-45, name
        assert same_bits(found, run(opened(layer, "scalar"), x)[0]), name


@pytest.mark.parametrize("layer", [Layer(576, 200, 8, 64), Layer(320, 96, 4, 32, True, True)], ids=["8 bits", "4 bits"])
def test_a_row_is_the_same_whatever_is_beside_it(layer: Layer, opened: Opener) -> None:
    x = activations(203, layer)
    alone = run(opened(layer), np.ascontiguousarray(x.reshape(203, 1, -1)[:1]))
    for threads in (1, 2, 3):
        graph = opened(layer, threads=threads)
        whole = run(graph, x)
        assert same_bits(whole[:, :1], alone)
        assert same_bits(whole, run(graph, x.reshape(7, 29, -1)).reshape(whole.shape))
        parts = [run(graph, np.ascontiguousarray(x[:, start : start + 17])) for start in range(0, 203, 17)]
        assert same_bits(np.concatenate(parts, 1), whole)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_stay_in_their_row(name: str, value: float, opened: Opener) -> None:
    layer = Layer(96, 40)
    graph, x = opened(layer, name), activations(9, layer)
    clean = run(graph, x)
    x[0, 4, 70] = value
    found = run(graph, x)
    assert np.isnan(found[0, 4]).all()
    assert same_bits(np.delete(found, 4, 1), np.delete(clean, 4, 1))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("level", [0, 255])
def test_the_largest_products_do_not_overflow(level: int, name: str, opened: Opener) -> None:
    """AVX2 adds two of them in 16 bits."""
    layer = Layer(128, 32, 8, 128, level=level)
    x = np.ones((1, 1, 128), np.float32)
    found = run(opened(layer, name), x)[0, 0]
    assert np.allclose(found, (level - 128) * 128 * layer.arrays()["s"][:, 0], rtol=1e-6)


def test_no_rows(opened: Opener) -> None:
    assert run(opened(Layer(64, 32)), np.zeros((2, 0, 64), np.float32)).shape == (2, 0, 32)


def test_many_threads_share_a_graph(opened: Opener) -> None:
    layer = Layer(256, 300, 4, 32)
    graph = opened(layer, threads=2)
    inputs = [activations(rows, layer, rows) for rows in (1, 2, 9, 40, 130)]
    expected = [run(graph, x) for x in inputs]
    assert not wrong_from_threads(lambda which: run(graph, inputs[which]), expected)


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return path


def test_weights_beside_the_graph_are_found(tmp_path: Path) -> None:
    layer = Layer(64, 48, has_zeros=True)
    path = tmp_path / "graph.onnx"
    onnx.save(layer.model(), path, save_as_external_data=True, location="graph.data", size_threshold=0)
    graph = LoadedGraph(path, threads=1)
    assert graph.kernels == SETS[0]
    x = activations(3, layer)
    assert np.allclose(run(graph, x), layer.expected(x), rtol=1e-5, atol=1e-5)
    (tmp_path / "graph.data").unlink()
    with pytest.raises(PackageCorruptError, match=r"graph\.onnx cannot be loaded"):
        LoadedGraph(path, threads=1)


UNFIT: dict[str, dict[str, Any]] = {
    "activations in full": {"accuracy_level": 0},
    "no accuracy level": {"accuracy_level": None},
    "another number of bits": {"bits": 2},
}


@pytest.mark.parametrize("edits", UNFIT.values(), ids=UNFIT)
def test_operators_that_mean_something_else_stay(edits: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, Layer(64, 32).model(**edits))
    assert replaceable(path) == 0
    assert with_kernels(path) is None


def test_weights_that_are_no_constants_stay(tmp_path: Path) -> None:
    model = Layer(64, 32).model()
    scales = next(each for each in model.graph.initializer if each.name == "s")
    model.graph.initializer.remove(scales)
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [32, 2]))
    assert with_kernels(saved(tmp_path, model)) is None


def test_float16_stays(tmp_path: Path) -> None:
    model = Layer(64, 32).model()
    scales = next(each for each in model.graph.initializer if each.name == "s")
    scales.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scales).astype(np.float16), "s"))
    assert with_kernels(saved(tmp_path, model)) is None


def test_all_else_of_the_graph_stays_as_it_is(tmp_path: Path) -> None:
    before = Layer(64, 32, has_bias=True).model()
    changed = with_kernels(saved(tmp_path, before))
    assert changed is not None
    after = onnx.load_from_string(changed)
    (node,) = after.graph.node
    assert (node.op_type, node.domain) == ("BlockLinear", "edgellm")
    assert [(each.domain, each.version) for each in after.opset_import][-1] == ("edgellm", 1)
    node.op_type, node.domain = "MatMulNBits", "com.microsoft"
    del after.opset_import[-1]
    assert after == before


def test_a_damaged_graph_is_onnx_runtimes_to_name(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(Layer(64, 32).model().SerializeToString()[:-100])
    assert with_kernels(path) is None
    with pytest.raises(PackageCorruptError):
        LoadedGraph(path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    model = Layer(64, 32).model(N=33)
    with pytest.raises(edgellm.EdgellmError, match="BlockLinear: a weight has another size or type"):
        LoadedGraph(saved(tmp_path, model))


def test_off_is_onnx_runtime_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, Layer(64, 32).model())
    assert LoadedGraph(path, threads=1, kernels="off").kernels is None


def test_another_choice_is_refused(package: Path) -> None:
    with pytest.raises(OptionError, match="kernels is 'on', expected 'auto' or 'off'"):
        edgellm.load(package, kernels="on")  # type: ignore[arg-type]


def test_an_instruction_set_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELLM_KERNELS", "mmx")
    with pytest.raises(OptionError, match="EDGELLM_KERNELS is 'mmx', expected one that this machine runs"):
        LoadedGraph(saved(tmp_path, Layer(64, 32).model()))


WITHOUT = """
import sys
sys.modules["edgellm_kernels"] = None
from pathlib import Path
from edgellm.ort.loaded_graph import LoadedGraph
print(LoadedGraph(Path(sys.argv[1])).kernels)
"""


def test_without_the_kernels_onnx_runtime_runs_it(tmp_path: Path) -> None:
    path = saved(tmp_path, Layer(64, 32).model())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(path)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("other", [lambda: 10**6, None], ids=["newer", "older than the question"])
def test_a_library_of_another_version_is_left_alone(
    other: Callable[[], int] | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A graph with operators that it does not have, or with other inputs, could not be opened."""
    import edgellm_kernels

    if other is None:
        monkeypatch.delattr(edgellm_kernels, "interface")
    else:
        monkeypatch.setattr(edgellm_kernels, "interface", other)
    library.cache_clear()
    try:
        assert library() is None
        assert "edgellm-kernels" in caplog.text
        assert "ONNX Runtime's own kernels are used" in caplog.text
    finally:
        library.cache_clear()
