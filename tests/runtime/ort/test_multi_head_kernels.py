"""Attention without a cache beside its definition in float64 and beside ONNX Runtime's own operator."""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgellm.errors import EdgellmError
from edgellm.ort.kernels import library, replaceable
from edgellm.ort.loaded_graph import LoadedGraph
from kernel_checks import same_bits

Floats = npt.NDArray[np.float32]
Feeds = dict[str, npt.NDArray[Any]]

FOUND = library()
SETS = () if FOUND is None else FOUND.instruction_sets
pytestmark = pytest.mark.skipif(FOUND is None, reason="edgellm-kernels is not installed")

INPUTS = ["query", "key", "value", "", "mask", "bias"]


@dataclass(frozen=True)
class MultiHead:
    """A MultiHeadAttention. `across`: keys and values come head by head. `mask`: "", "keys", "lengths" or "each"."""

    heads: int = 2
    depth: int = 16
    value_depth: int = 16
    across: bool = False
    scale: float = 0.0
    mask: str = ""
    bias: str = ""  # "", "one" or "each"
    masked: float = -1e30

    def model(self, *, unidirectional: int = 0, outputs: int = 1) -> onnx.ModelProto:
        names = [
            name for name in INPUTS if name != ("" if self.mask else "mask") and name != ("" if self.bias else "bias")
        ]
        given = ["" if name not in names else name for name in INPUTS]
        scale = {"scale": self.scale} if self.scale else {}
        node = helper.make_node(
            "MultiHeadAttention", given, ["y", "present_key", "present_value"][:outputs], "attention",
            domain="com.microsoft", num_heads=self.heads, mask_filter_value=self.masked, unidirectional=unidirectional,
            **scale,
        )  # fmt: skip
        ports = [
            helper.make_tensor_value_info(name, TensorProto.INT32 if name == "mask" else TensorProto.FLOAT, None)
            for name in names
            if name
        ]
        out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph([node], "attention", ports, out)
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def feeds(self, batch: int, queries: int, keys: int, seed: int = 0) -> Feeds:
        """Each row has at least one key that its mask leaves."""
        rng = np.random.default_rng(seed)
        sizes = {"query": (queries, self.depth), "key": (keys, self.depth), "value": (keys, self.value_depth)}
        found: Feeds = {
            name: rng.normal(size=(batch, length, self.heads, depth)).astype(np.float32)
            for name, (length, depth) in sizes.items()
        }
        for name in ("key", "value") if self.across else ():
            found[name] = np.ascontiguousarray(np.moveaxis(found[name], 2, 1))
        for name in ("query",) if self.across else ("query", "key", "value"):
            found[name] = found[name].reshape(*found[name].shape[:2], -1)
        found |= self._mask(rng, batch, queries, keys)
        shape = {"one": (1, 1), "each": (batch, self.heads)}.get(self.bias)
        if shape:
            found["bias"] = rng.normal(size=(*shape, queries, keys)).astype(np.float32)
        return found

    def _mask(self, rng: np.random.Generator, batch: int, queries: int, keys: int) -> Feeds:
        if not self.mask:
            return {}
        lengths = rng.integers(1, keys + 1, batch).astype(np.int32)
        seen = (np.arange(keys) < lengths[:, None]).astype(np.int32)
        each = np.maximum(rng.integers(0, 2, (batch, queries, keys)), np.arange(keys) == 0).astype(np.int32)
        return {"mask": {"lengths": lengths, "keys": seen, "each": each}[self.mask]}

    def expected(self, feeds: Feeds) -> npt.NDArray[np.float64]:
        query, key, value = (self._by_head(feeds[name]) for name in ("query", "key", "value"))
        scores = np.einsum("bhqd,bhkd->bhqk", query, key) * (self.scale or self.depth**-0.5)
        if self.mask:
            mask = feeds["mask"]
            if self.mask == "lengths":
                mask = (np.arange(scores.shape[-1]) < mask[:, None]).astype(np.int32)
            mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
            scores = scores + np.where(mask > 0, 0.0, self.masked)
        scores = scores + feeds.get("bias", np.float32(0))
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.einsum("bhqk,bhkd->bqhd", weights / weights.sum(-1, keepdims=True), value)
        return np.asarray(y.reshape(*y.shape[:2], -1))

    def _by_head(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        split = x if x.ndim == 4 else np.moveaxis(x.reshape(*x.shape[:2], self.heads, -1), 2, 1)
        return split.astype(np.float64)


def run(graph: LoadedGraph, feeds: Feeds) -> Floats:
    (y,) = graph.run(feeds, ["y"])
    return np.array(y.numpy(), np.float32)


ATTENTIONS = st.builds(
    MultiHead,
    heads=st.integers(1, 5),
    depth=st.sampled_from([8, 16, 24, 64]),
    value_depth=st.sampled_from([8, 16, 40, 64]),
    across=st.booleans(),
    scale=st.sampled_from([0.0, 1.0]),
    mask=st.sampled_from(["", "keys", "lengths", "each"]),
    bias=st.sampled_from(["", "one", "each"]),
    masked=st.sampled_from([-1e30, -10000.0]),
)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 130), st.integers(1, 330), st.integers(0, 99))


@given(ATTENTIONS, SIZES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_are_right_and_the_same_on_every_instruction_set(
    opened: Any, a: MultiHead, sizes: tuple[int, int, int, int]
) -> None:
    feeds = a.feeds(*sizes)
    found = {name: run(opened(a, name), feeds) for name in SETS}
    assert np.abs(found["scalar"] - a.expected(feeds)).max() < (4e-5 if a.scale else 5e-6)
    for name in SETS:
        assert same_bits(found[name], found["scalar"]), name


@given(ATTENTIONS, SIZES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_means_what_onnx_runtimes_operator_means(
    opened: Any, a: MultiHead, sizes: tuple[int, int, int, int]
) -> None:
    if a.across:
        a = replace(a, value_depth=a.depth)  # ONNX Runtime takes no other
    feeds = a.feeds(*sizes)
    assert np.abs(run(opened(a), feeds) - run(opened(a, "off"), feeds)).max() < 2e-5


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("across", [False, True])
def test_a_row_is_the_same_whatever_is_beside_it(threads: int, across: bool, opened: Any) -> None:
    a = MultiHead(3, 24, 24, across=across, mask="keys")
    graph, feeds = opened(a, threads=threads), a.feeds(3, 101, 300)
    whole = run(graph, feeds)
    for row in range(3):
        seen = int(feeds["mask"][row].sum())
        alone = {name: array[row : row + 1] for name, array in feeds.items()}
        assert same_bits(run(graph, alone), whole[row : row + 1])
        short = alone | {
            name: alone[name][:, :, :seen] if across else alone[name][:, :seen] for name in ("key", "value")
        }
        short["mask"] = short["mask"][:, :seen]
        short = {name: np.ascontiguousarray(array) for name, array in short.items()}
        assert same_bits(run(graph, short), whole[row : row + 1])
        few = run(graph, alone | {"query": np.ascontiguousarray(alone["query"][:, 40:47])})
        assert same_bits(few, whole[row : row + 1, 40:47])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("mask", ["keys", "lengths"])
def test_keys_behind_those_that_a_row_sees_are_left_out(mask: str, queries: int, name: str, opened: Any) -> None:
    """Where all queries could have one more key each; to the same bits as where none are behind."""
    a = MultiHead(3, 24, 24, across=True, mask="keys")
    feeds = a.feeds(3, queries, 200)
    lengths = [40, 197, 3]
    feeds["mask"] = (np.arange(200) < np.array(lengths)[:, None]).astype(np.int32)
    feeds["mask"][1, 5:20] = 0  # those among others are hidden as ever
    given = {**feeds, **{side: feeds[side].copy() for side in ("key", "value")}}
    if mask == "lengths":
        a, feeds["mask"][1, 5:20] = replace(a, mask=mask), 1
        given["mask"] = np.array(lengths, np.int32)
    for row, length in enumerate(lengths):
        for side in ("key", "value"):
            given[side][row, :, length + queries - 1 :] = np.nan
    whole = run(opened(a, name), given)
    for row, length in enumerate(lengths):
        alone = {side: np.ascontiguousarray(feeds[side][row : row + 1, :, :length]) for side in ("key", "value")}
        alone |= {"query": feeds["query"][row : row + 1], "mask": feeds["mask"][row : row + 1, :length].copy()}
        assert same_bits(run(opened(replace(a, mask="keys"), name), alone), whole[row : row + 1])


def before_a_guard(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in memory of its own, behind which nobody may read."""
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    guard = ctypes.c_void_p(start + size), ctypes.c_size_t(mmap.PAGESIZE)
    assert ctypes.CDLL(None).mprotect(*guard, 0) == 0
    found = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes).reshape(array.shape)
    found[...] = array
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the page behind is guarded with mprotect")
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("depth", [8, 16, 24])
def test_nothing_is_read_beyond_its_end(depth: int, across: bool, name: str, opened: Any) -> None:
    a = MultiHead(2, depth, depth, across=across, mask="keys", bias="each")
    graph = opened(a, name)
    for queries, keys in ((1, 1), (3, 70), (50, 64)):
        feeds, binding = a.feeds(1, queries, keys), graph.bind()
        for key, array in feeds.items():
            binding.input(key, before_a_guard(array))
        y = before_a_guard(np.empty((1, queries, 2 * depth), np.float32))
        binding.output("y", y)
        binding.run()
        assert same_bits(y, run(graph, feeds))


def test_a_row_without_keys_is_a_mean(opened: Any) -> None:
    """As ONNX Runtime has it: all are hidden alike."""
    a = MultiHead(1, 16, 16, mask="keys")
    feeds = a.feeds(1, 3, 70)
    feeds["mask"][:] = 0
    assert np.abs(run(opened(a), feeds) - feeds["value"].mean(1)).max() < 1e-5


UNFIT: dict[str, Any] = {
    "causal": lambda: MultiHead().model(unidirectional=1),
    "keys and values wanted": lambda: MultiHead().model(outputs=3),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_operators_that_mean_something_else_stay(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(make(), path)
    assert replaceable(path) == 0


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("query", (1, 2, 33), "other sizes than their heads"),
        ("key", (1, 5, 32), "other sizes than their heads"),
        ("value", (2, 7, 32), "other sizes than their heads"),
        ("mask", (1, 6), "a mask for each row, key, or query and key"),
        ("bias", (1, 1, 2, 6), "the bias has another size"),
    ],
)
def test_inputs_of_other_sizes_are_refused(name: str, shape: tuple[int, ...], message: str, opened: Any) -> None:
    a = MultiHead(mask="keys", bias="one")
    graph, feeds = opened(a), a.feeds(1, 2, 7)
    assert run(graph, feeds).shape == (1, 2, 32)
    with pytest.raises(EdgellmError, match=message):
        run(graph, feeds | {name: np.zeros(shape, feeds[name].dtype)})
