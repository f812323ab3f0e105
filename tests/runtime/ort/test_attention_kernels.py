"""Attention beside its definition in float64 and beside ONNX Runtime's own, on each instruction set of this machine."""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgellm.errors import EdgellmError
from edgellm.ort.kernels import library, replaceable, with_kernels
from edgellm.ort.loaded_graph import LoadedGraph
from kernel_checks import same_bits, wrong_from_threads

Floats = npt.NDArray[np.float32]

FOUND = library()
SETS = () if FOUND is None else FOUND.instruction_sets
pytestmark = pytest.mark.skipif(FOUND is None, reason="edgellm-kernels is not installed")

TYPES = {"seqlens": TensorProto.INT32, "total": TensorProto.INT32, "positions": TensorProto.INT64}
INPUTS = [
    "query", "key", "value", "past_key", "past_value", "seqlens", "total", "cos", "sin", "positions", "bias", "sinks",
    "key_scale", "value_scale",
]  # fmt: skip
OUTPUTS = ["y", "present_key", "present_value"]


@dataclass(frozen=True)
class Attention:
    """A GroupQueryAttention. `turned`: channels of a head that rotary tables turn. `limit`: rows of those tables."""

    heads: int = 3
    kv_heads: int = 1
    depth: int = 8
    packed: bool = True
    turned: int = 0
    interleaved: bool = False
    has_positions: bool = False
    window: int = 0
    softcap: float = 0.0
    scale: float = 0.0
    bias: str = ""  # "", "one" or "each": for all heads and rows, or for each
    sink: str = ""  # "", "zero" or "each"
    limit: int = 2000
    cache: str = "float32"  # or "bfloat16"; "int8": with a scale for each channel; "int8 of one": with one for all

    @property
    def attributes(self) -> dict[str, Any]:
        given = {"num_heads": self.heads, "kv_num_heads": self.kv_heads, "do_rotary": int(self.turned > 0)}
        given |= {"rotary_interleaved": int(self.interleaved), "smooth_softmax": int(self.sink == "zero")}
        if self.is_int8:
            kind = "PER_TENSOR" if self.cache == "int8 of one" else "PER_CHANNEL"
            given |= {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8}
        numbers = {"local_window_size": self.window, "softcap": self.softcap, "scale": self.scale}
        return given | {name: value for name, value in numbers.items() if value}

    @property
    def is_int8(self) -> bool:
        return self.cache.startswith("int8")

    @property
    def kv_cache(self) -> str:
        return "bfloat16" if self.cache == "bfloat16" else "auto"

    @property
    def cache_type(self) -> type[np.generic]:
        return np.int8 if self.is_int8 else np.uint16 if self.cache == "bfloat16" else np.float32

    def scales(self) -> dict[str, Floats]:
        """[1, kv_heads, 1, depth] each, or [1]."""
        rng = np.random.default_rng(self.depth)
        shape = (1,) if self.cache == "int8 of one" else (1, self.kv_heads, 1, self.depth)
        both = {name: rng.uniform(0.02, 0.03, shape).astype(np.float32) for name in ("key_scale", "value_scale")}
        return both if self.is_int8 else {}

    def names(self) -> list[str]:
        """Of the inputs, "" for those that it has not."""
        unused = {"key", "value"} if self.packed else set()
        unused |= set() if self.turned else {"cos", "sin"}
        unused |= set() if self.has_positions else {"positions"}
        unused |= set() if self.bias else {"bias"}
        unused |= set() if self.sink == "each" else {"sinks"}
        unused |= set() if self.is_int8 else {"key_scale", "value_scale"}
        return ["" if name in unused else name for name in INPUTS]

    def model(self, **edits: Any) -> onnx.ModelProto:
        names = self.names()
        attributes = {name: value for name, value in {**self.attributes, **edits}.items() if value is not None}
        node = helper.make_node(
            "GroupQueryAttention", names, OUTPUTS, "attention", domain="com.microsoft", **attributes
        )
        ports = [
            helper.make_tensor_value_info(name, self._type(name), self._shape(name))
            for name in names
            if name not in ("", "cos", "sin", "key_scale", "value_scale")
        ]
        outputs = [helper.make_tensor_value_info(name, self._type(name), self._shape(name)) for name in OUTPUTS]
        constants = self.tables() | self.scales()
        tables = [numpy_helper.from_array(table, name) for name, table in constants.items()]
        graph = helper.make_graph([node], "attention", ports, outputs, tables)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _type(self, name: str) -> int:
        if name.startswith(("past", "present")) and self.is_int8:
            return TensorProto.INT8
        return int(TYPES.get(name, TensorProto.FLOAT))

    def _shape(self, name: str) -> list[Any]:
        if name == "sinks":
            return [self.heads]
        if name in ("total", "seqlens"):
            return ["batch"] if name == "seqlens" else [1]
        if name == "positions":
            return ["batch", "length"]
        if name == "bias":
            return ["bias_batch", "bias_heads", "length", "total"]
        if name.startswith(("past", "present")):
            return ["batch", self.kv_heads, f"{name}_capacity", self.depth]
        return ["batch", "length", None]

    def tables(self) -> dict[str, Floats]:
        if not self.turned:
            return {}
        angles = np.arange(self.limit)[:, None] * 100.0 ** -(np.arange(self.turned // 2) / max(self.turned // 2, 1))
        return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


@dataclass(frozen=True)
class Text:
    """Tokens of each row as the operator takes them: q [batch, length, heads, depth], k and v [batch, length, kv_heads,
    depth], and what is added to scores [batch, heads, length, length]."""

    q: Floats
    k: Floats
    v: Floats
    bias: Floats
    sinks: Floats

    @property
    def length(self) -> int:
        return self.q.shape[1]


def text(a: Attention, batch: int, length: int, seed: int = 0, size: float = 1.0) -> Text:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Floats:
        return (rng.normal(size=shape) * size).astype(np.float32)

    shape = (batch, a.heads) if a.bias == "each" else (1, 1)
    q, k, v = (normal(batch, length, heads, a.depth) for heads in (a.heads, a.kv_heads, a.kv_heads))
    return Text(q, k, v, normal(*shape, length, length), normal(a.heads))


def turned(a: Attention, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x [batch, length, heads, depth], by its positions."""
    if not a.turned:
        return x
    tables = a.tables()
    cos, sin = (tables[name].astype(np.float64)[: x.shape[1], None] for name in ("cos", "sin"))
    half, found = a.turned // 2, x.copy()
    first, second = (
        (slice(0, a.turned, 2), slice(1, a.turned, 2)) if a.interleaved else (slice(half), slice(half, a.turned))
    )
    found[..., first] = x[..., first] * cos - x[..., second] * sin
    found[..., second] = x[..., second] * cos + x[..., first] * sin
    return found


def as_bfloat16(x: Floats) -> Floats:
    """Rounded, in float32."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def kept(a: Attention, x: npt.NDArray[np.float64], side: str) -> npt.NDArray[np.float64]:
    """x [batch, length, kv_heads, depth] as the cache keeps it."""
    if a.cache == "bfloat16":
        return as_bfloat16(x.astype(np.float32)).astype(np.float64)
    if not a.is_int8:
        return x
    scale = a.scales()[f"{side}_scale"].astype(np.float64)
    scale = scale if scale.size == 1 else scale[:, None, :, 0]
    return np.clip(np.rint(x / scale), -128, 127) * scale


def expected(a: Attention, t: Text) -> npt.NDArray[np.float64]:
    """[batch, length, heads, depth] from the definition."""
    q, k = (turned(a, x.astype(np.float64)) for x in (t.q, t.k))
    groups = a.heads // a.kv_heads
    k, v = (np.repeat(kept(a, x, side), groups, 2) for x, side in ((k, "key"), (t.v.astype(np.float64), "value")))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) * (a.scale or a.depth**-0.5)
    if a.softcap:
        scores = np.tanh(scores / a.softcap) * a.softcap
    if a.bias:
        scores = scores + t.bias
    distance = np.arange(t.length)[:, None] - np.arange(t.length)
    scores = np.where((distance >= 0) & (not a.window or distance < a.window), scores, -np.inf)
    sinks = {"": -np.inf, "zero": 0.0}.get(a.sink, t.sinks[None, :, None, None])
    largest = np.maximum(scores.max(-1, keepdims=True), sinks)
    weights = np.exp(scores - largest)
    return np.einsum("bhqk,bkhd->bqhd", weights / (weights.sum(-1, keepdims=True) + np.exp(sinks - largest)), v)


@dataclass
class Cache:
    """[batch, kv_heads, capacity, depth], and how many tokens of each row are in it."""

    key: npt.NDArray[Any]
    value: npt.NDArray[Any]
    lengths: list[int]

    @classmethod
    def empty(cls, a: Attention, batch: int, capacity: int, fill: float = 0.0) -> Cache:
        shape = (batch, a.kv_heads, capacity, a.depth)
        return cls(np.full(shape, fill, a.cache_type), np.full(shape, fill, a.cache_type), [0] * batch)


def feeds(a: Attention, t: Text, cache: Cache, rows: list[slice], total: int) -> dict[str, npt.NDArray[Any]]:
    """The operator's inputs for these tokens of each row, as many each, behind those in the cache."""
    q, k, v = (np.stack([x[i, part] for i, part in enumerate(rows)]) for x in (t.q, t.k, t.v))
    batch, length = q.shape[:2]
    flat = [x.reshape(batch, length, x.shape[2] * a.depth) for x in (q, k, v)]
    given: dict[str, npt.NDArray[Any]] = dict(zip(("query", "key", "value"), flat, strict=True))
    if a.packed:
        given["query"] = np.concatenate(flat, -1)
    ends = [part.stop for part in rows]
    positions = np.stack([np.arange(part.start, part.stop) for part in rows])
    given |= {"seqlens": np.array(ends, np.int32) - 1, "total": np.array([total], np.int32), "positions": positions}
    if a.bias:
        several = range(batch) if len(t.bias) > 1 else range(1)
        given["bias"] = np.stack([t.bias[i][:, rows[i], :total] for i in several])
    given |= {"past_key": cache.key, "past_value": cache.value, "sinks": t.sinks}
    names = a.names()
    return {name: np.ascontiguousarray(array) for name, array in given.items() if name in names}


def step(graph: LoadedGraph, a: Attention, t: Text, cache: Cache, rows: list[slice], in_place: bool = True) -> Floats:
    """[batch, tokens, heads, depth] of these tokens, which go into the cache."""
    total = max(part.stop for part in rows)
    given = feeds(a, t, cache, rows, total)
    if in_place:
        binding = graph.bind()
        for name, array in given.items():
            if not name.startswith("past"):
                binding.input(name, array)
        for side in ("key", "value"):
            buffer = getattr(cache, side)
            binding.address(f"past_{side}", f"present_{side}", "cpu", a.cache_type, buffer.shape, buffer.ctypes.data)
        binding.new_output("y")
        binding.run()
        y = binding.fetch("y").copy()
    else:
        y, cache.key, cache.value = (np.array(found.numpy()) for found in graph.run(given, OUTPUTS))
    cache.lengths = [part.stop for part in rows]
    return np.asarray(y, np.float32).reshape(*y.shape[:2], a.heads, a.depth)


def read(
    graph: LoadedGraph, a: Attention, t: Text, pieces: list[int], *, in_place: bool = True, capacity: int = 0,
    fill: float = 0.0,
) -> Floats:  # fmt: skip
    """The whole text, piece by piece."""
    batch = len(t.q)
    cache = Cache.empty(a, batch, max(capacity, t.length if in_place else 0), fill)
    found, start = [], 0
    for count in pieces:
        rows = [slice(start, start + count)] * batch
        found.append(step(graph, a, t, cache, rows, in_place))
        start += count
    return np.concatenate(found, 1)


def attentions(depths: list[int], pairs: list[int], caches: list[str]) -> st.SearchStrategy[Attention]:
    """`pairs`: of channels that are turned; at most all."""
    return st.builds(
        lambda group, kv_heads, pairs, depth, **rest: Attention(
            heads=group * kv_heads, kv_heads=kv_heads, depth=depth, turned=2 * min(pairs, depth // 2), **rest
        ),
        group=st.integers(1, 7),
        kv_heads=st.integers(1, 3),
        pairs=st.sampled_from(pairs),
        depth=st.sampled_from(depths),
        packed=st.booleans(),
        interleaved=st.booleans(),
        window=st.sampled_from([0, 0, 1, 5, 70, 200]),
        softcap=st.sampled_from([0.0, 0.0, 3.0, 50.0]),
        scale=st.sampled_from([0.0, 0.3]),
        bias=st.sampled_from(["", "", "one", "each"]),
        sink=st.sampled_from(["", "", "zero", "each"]),
        cache=st.sampled_from(caches),
    )


CACHES = ["float32", "float32", "int8", "int8 of one"]  # of GroupQueryAttention
ATTENTIONS = attentions([8, 16, 24, 64, 80], [0, 2, 8, 99], [*CACHES, "bfloat16", "bfloat16"])
THEIRS = attentions([16, 64, 80], [0, 8, 99], CACHES)  # those of which ONNX Runtime turns heads
ROUNDED = attentions([8, 16, 24, 64, 80], [0], ["bfloat16"])


def pieces_of(length: int, cuts: list[int]) -> list[int]:
    ends = sorted({cut % length for cut in cuts if cut % length} | {length})
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@given(ATTENTIONS, st.integers(1, 2), st.integers(1, 330), st.lists(st.integers(0, 999), max_size=3), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_are_right_and_the_same_on_every_instruction_set(
    opened: Any, a: Attention, batch: int, length: int, cuts: list[int], in_place: bool
) -> None:
    t, pieces = text(a, batch, length, seed=length), pieces_of(length, cuts)
    found = {name: read(opened(a, name), a, t, pieces, in_place=in_place) for name in SETS}
    # Of scores, whose rounding becomes a share of a weight. What differs in its last bit may be rounded to the next
    # number of the cache: 0.03 from it in int8; in bfloat16 1/128 of it, and only keys that are turned differ.
    size = max(1.0, a.softcap / 10, a.scale * a.depth**0.5)
    exact = a.cache == "float32" or (a.cache == "bfloat16" and not a.turned)
    assert np.abs(found["scalar"] - expected(a, t)).max() <= (4e-6 * size if exact else 0.04)
    for name in SETS:
        assert same_bits(found[name], found["scalar"]), name


@given(THEIRS, st.integers(1, 3), st.integers(2, 300), st.integers(0, 999))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_means_what_onnx_runtimes_operator_means(
    opened: Any, a: Attention, batch: int, length: int, cut: int
) -> None:
    """A prompt, then tokens: rows of several lengths, the shorter filled up behind, and one token more for each."""
    t, rng = text(a, batch, length + 1), np.random.default_rng(cut)
    lengths = [length, *rng.integers(1, length, batch - 1).tolist()]
    results = []
    for kernels in (None, "off"):
        graph, cache = opened(a, kernels), Cache.empty(a, batch, length + 1)
        given = feeds(a, t, cache, [slice(0, length)] * batch, length)
        given["seqlens"] = np.array(lengths, np.int32) - 1
        y, cache.key, cache.value = (np.array(found.numpy()) for found in graph.run(given, OUTPUTS))
        # In the place of padding anything may be.
        kept = [y[i, :count] for i, count in enumerate(lengths)]
        last = step(graph, a, t, cache, [slice(count, count + 1) for count in lengths], in_place=False)
        ends = [cache.key[i, :, : count + 1] for i, count in enumerate(lengths)]
        results.append([*kept, last, *ends])
    for ours, theirs in zip(*results, strict=True):
        if ours.dtype == np.int8:
            assert np.abs(ours.astype(np.int32) - theirs.astype(np.int32)).max() <= 1
        else:
            assert np.abs(ours - theirs).max() < (0.04 if a.is_int8 else 1e-5)


@given(ROUNDED, st.integers(1, 2), st.integers(1, 330), st.lists(st.integers(0, 999), max_size=3), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bfloat16_cache_is_one_of_numbers_rounded_before(
    opened: Any, a: Attention, batch: int, length: int, cuts: list[int], in_place: bool
) -> None:
    """To the last bit, on every instruction set: tokens of a chunk see each other's rounded keys, too."""
    t, pieces = text(a, batch, length, seed=length), pieces_of(length, cuts)
    rounded = replace(t, k=as_bfloat16(t.k), v=as_bfloat16(t.v))
    wide = replace(a, cache="float32")
    expected = read(opened(wide), wide, rounded, [length])
    for name in SETS:
        assert same_bits(read(opened(a, name), a, t, pieces, in_place=in_place), expected), name


def test_keys_are_rounded_when_they_are_turned(opened: Any) -> None:
    a, length = Attention(4, 2, 24, turned=16, cache="bfloat16"), 70
    t, wide = text(a, 2, length), replace(a, cache="float32")
    cache, float32 = Cache.empty(a, 2, length), Cache.empty(wide, 2, length)
    step(opened(a), a, t, cache, [slice(0, length)] * 2)
    step(opened(wide), wide, t, float32, [slice(0, length)] * 2)
    for side in ("key", "value"):
        expected = getattr(float32, side).astype(ml_dtypes.bfloat16).view(np.uint16)
        assert (getattr(cache, side) == expected).all()


EXACT = {
    "groups": Attention(6, 2, 64, turned=64),
    "window": Attention(4, 2, 16, turned=8, window=100, sink="each"),
    "bias and softcap": Attention(2, 2, 24, softcap=5.0, bias="one"),
    "one head": Attention(1, 1, 8),
    "int8": Attention(6, 2, 24, turned=24, cache="int8"),
    "bfloat16": Attention(6, 2, 24, turned=24, cache="bfloat16"),
}
NO_NUMBER = {"float32": np.nan, "bfloat16": 0x7FC0, "int8": 99}  # or, in int8, one that would be seen


@pytest.mark.parametrize("a", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_token_is_the_same_whatever_is_beside_it(a: Attention, threads: int, opened: Any) -> None:
    length = 600
    t = text(a, 2, length)
    whole = read(opened(a), a, t, [length])
    graph = opened(a, threads=threads)
    for count in (1, 7, 64, 131, 599):
        pieces = [count] * (length // count) + [length % count] * (length % count > 0)
        assert same_bits(read(graph, a, t, pieces), whole), count
    assert same_bits(read(graph, a, t, [300, 300], in_place=False), whole)
    assert same_bits(read(graph, a, t, [300, 300], capacity=777, fill=NO_NUMBER[a.cache]), whole)
    alone = Text(t.q[1:], t.k[1:], t.v[1:], t.bias, t.sinks)
    assert same_bits(read(graph, a, alone, [length]), whole[1:])


def test_rows_of_a_batch_have_lengths_of_their_own(opened: Any) -> None:
    a, lengths = Attention(4, 2, 16, turned=16), [5, 70, 300, 1]
    t = text(a, 4, 301)
    for threads in (1, 2):
        graph = opened(a, threads=threads)
        whole, cache = read(graph, a, t, [301]), Cache.empty(a, 4, 320)
        for i, count in enumerate(lengths):
            single, alone = (
                Text(t.q[i : i + 1], t.k[i : i + 1], t.v[i : i + 1], t.bias, t.sinks),
                Cache.empty(a, 1, 320),
            )
            step(graph, a, single, alone, [slice(0, count)])
            cache.key[i], cache.value[i] = alone.key[0], alone.value[0]
        found = step(graph, a, t, cache, [slice(count, count + 1) for count in lengths])
        for i, count in enumerate(lengths):
            assert same_bits(found[i], whole[i, count : count + 1])


@pytest.mark.parametrize("in_place", [True, False])
def test_the_cache_holds_what_was_read(in_place: bool, opened: Any) -> None:
    a, length = Attention(2, 1, 16, turned=8, interleaved=True), 90
    t, graph = text(a, 2, length), opened(a)
    cache = Cache.empty(a, 2, 100 if in_place else 40, fill=7.0)
    for start in (0, 50):
        step(graph, a, t, cache, [slice(start, start + (50 if start == 0 else 40))] * 2, in_place)
    keys, values = (np.moveaxis(x, 1, 2) for x in (turned(a, t.k.astype(np.float64)), t.v))
    assert cache.key.shape[2] == (100 if in_place else length)
    assert np.abs(cache.key[:, :, :length] - keys).max() < 1e-6
    assert (cache.value[:, :, :length] == values).all()
    assert (cache.value[:, :, length:] == 7).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("window", "cache"), [(0, "float32"), (90, "float32"), (90, "bfloat16")])
def test_numbers_that_are_none_stay_with_those_that_see_them(
    name: str, value: float, window: int, cache: str, opened: Any
) -> None:
    a, length, bad = Attention(3, 1, 16, window=window, cache=cache), 400, 200
    graph, t = opened(a, name), text(a, 2, length)
    clean = read(graph, a, t, [length])
    for array in (t.q, t.k, t.v):
        array[0, bad, :, 3] = value
    for pieces in ([length], [130, 70, 1, 199]):
        found = read(graph, a, t, pieces)
        assert same_bits(found[1], clean[1])
        assert same_bits(found[0, :bad], clean[0, :bad])
        assert not np.isfinite(found[0, bad]).all()
        if window:
            assert same_bits(found[0, bad + window :], clean[0, bad + window :])


@pytest.mark.parametrize("name", SETS)
def test_scores_far_apart(name: str, opened: Any) -> None:
    """One key takes all the weight; the sums begin anew with it."""
    a, length = Attention(1, 1, 8), 300
    t = text(a, 1, length, size=100.0)
    found = read(opened(a, name), a, t, [length])
    assert np.abs(found - expected(a, t)).max() < 0.02
    assert np.isfinite(found).all()


def test_a_bias_that_hides_everything_but_one(opened: Any) -> None:
    a, length = Attention(2, 1, 8, bias="one"), 150
    t = text(a, 1, length)
    t.bias[...] = np.where(np.eye(length, dtype=bool), 0, np.finfo(np.float32).min)
    found = read(opened(a), a, t, [length])
    assert np.abs(found - t.v).max() < 1e-6


def test_numbers_beyond_those_of_int8(opened: Any) -> None:
    a = Attention(1, 1, 8, cache="int8 of one")
    t, cache = text(a, 1, 5), Cache.empty(a, 1, 5)
    t.k[0, :, 0, 0] = np.array([1e30, -np.inf, np.inf, np.nan, -5.0])
    scale = a.scales()["key_scale"][0]
    t.k[0, :, 0, 1] = np.array([0.5, 1.5, -0.5, -2.5, 127.5]) * scale  # ties
    step(opened(a), a, t, cache, [slice(0, 5)])
    assert cache.key[0, 0, :, 0].tolist() == [127, -128, 127, 127, -128]
    assert cache.key[0, 0, :, 1].tolist() == [0, 2, 0, -2, 127]


def test_numbers_that_bfloat16_has_not(opened: Any) -> None:
    """Ties, subnormal numbers, what is too large, and a NaN whose lower bits alone say that it is none."""
    a = Attention(1, 1, 8, cache="bfloat16")
    t, cache = text(a, 1, 2), Cache.empty(a, 1, 2)
    given = [0x3F808000, 0x3F818000, 0x3F808001, 0x00018000, 0x7F7FFFFF, 0xFF800000, 0x7F800001, 0xFFFFFFFF]
    wanted = [0x3F80, 0x3F82, 0x3F81, 0x0002, 0x7F80, 0xFF80, 0x7FC0, 0x7FC0]
    t.k[0, 0, 0] = t.v[0, 1, 0] = np.array(given, np.uint32).view(np.float32)
    step(opened(a), a, t, cache, [slice(0, 2)])
    assert cache.key[0, 0, 0].tolist() == cache.value[0, 0, 1].tolist() == wanted


PAGE = mmap.PAGESIZE


def before_a_guard(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in memory of its own, behind which nobody may read or write."""
    size = -(-max(array.nbytes, 1) // PAGE) * PAGE
    memory = mmap.mmap(-1, size + PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(PAGE), 0) == 0
    found = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes).reshape(array.shape)
    found[...] = array
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the page behind is guarded with mprotect")
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "a",
    [
        Attention(3, 1, 8, turned=8, bias="each", sink="each"),
        Attention(2, 1, 24, packed=False, window=10),
        Attention(2, 2, 64, turned=16, has_positions=True, bias="one"),
        Attention(2, 1, 24, cache="int8"),
        Attention(2, 1, 24, cache="bfloat16"),
    ],
)
def test_nothing_is_read_beyond_its_end(a: Attention, name: str, opened: Any) -> None:
    graph = opened(a, name)
    for length, new in ((1, 1), (67, 67), (130, 1), (259, 40)):
        t, past = text(a, 1, length), length - new
        cache = Cache.empty(a, 1, length)
        if past:
            step(graph, a, t, cache, [slice(0, past)])
        expected = step(graph, a, t, Cache(cache.key.copy(), cache.value.copy(), [past]), [slice(past, length)])
        cache = Cache(before_a_guard(cache.key), before_a_guard(cache.value), [past])
        given = {key: before_a_guard(x) for key, x in feeds(a, t, cache, [slice(past, length)], length).items()}
        y = before_a_guard(np.empty((1, new, a.heads * a.depth), np.float32))
        binding = graph.bind()
        for key, array in given.items():
            if not key.startswith("past"):
                binding.input(key, array)
        for side in ("key", "value"):
            buffer = getattr(cache, side)
            binding.address(f"past_{side}", f"present_{side}", "cpu", a.cache_type, buffer.shape, buffer.ctypes.data)
        binding.output("y", y)
        binding.run()
        assert same_bits(y.reshape(expected.shape), expected)


def test_no_tokens(opened: Any) -> None:
    a = Attention(2, 1, 8)
    graph, cache = opened(a), Cache.empty(a, 1, 10, fill=3.0)
    given = feeds(a, text(a, 1, 1), cache, [slice(4, 4)], 4)
    y, key, _ = (found.numpy() for found in graph.run(given, OUTPUTS))
    assert y.shape == (1, 0, 16)
    assert (key[:, :, :4] == 3).all()


def test_many_threads_share_a_graph(opened: Any) -> None:
    a = Attention(6, 2, 16, turned=16)
    graph, lengths = opened(a, threads=2), (1, 2, 40, 300)
    texts = [text(a, 1, length, seed=length) for length in lengths]
    whole = [read(graph, a, t, [t.length]) for t in texts]
    assert not wrong_from_threads(lambda which: read(graph, a, texts[which], [texts[which].length]), whole)


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return path


def with_types(model: onnx.ModelProto, type_: int, *names: str) -> onnx.ModelProto:
    for port in [*model.graph.input, *model.graph.output]:
        if port.name in names:
            port.type.tensor_type.elem_type = type_
    return model


def float16(model: onnx.ModelProto) -> onnx.ModelProto:
    return with_types(model, TensorProto.FLOAT16, "query", "past_key", "past_value", *OUTPUTS)


def with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.node[0].output.append("weights")
    return model


def with_inner_cache(model: onnx.ModelProto) -> onnx.ModelProto:
    """A past that is no input of the graph."""
    model.graph.node[0].input[3] = model.graph.node[0].input[4] = "inner"
    return model


UNFIT: dict[str, Any] = {
    "another type": lambda: float16(Attention().model()),
    "an int8 cache without scales": lambda: with_types(
        Attention().model(), TensorProto.INT8, "past_key", "past_value", *OUTPUTS[1:]
    ),
    "a cache of four bits": lambda: Attention(cache="int8").model(kv_cache_bit_width=4),
    "weights wanted": lambda: with_weights(Attention().model(qk_output=1)),
    "an unknown attribute": lambda: Attention().model(unknown=8),
    "a cache from within": lambda: with_inner_cache(Attention().model()),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_operators_that_mean_something_else_stay(make: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, make())
    assert replaceable(path) == 0
    assert with_kernels(path) is with_kernels(path, "bfloat16") is None


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("seqlens", np.array([9], np.int32), "a row is longer than the longest"),
        ("total", np.array([1], np.int32), "a row is longer than the longest"),
        ("bias", np.zeros((1, 1, 2, 3), np.float32), "the bias has another size"),
        ("query", np.zeros((1, 2, 33), np.float32), "other sizes than their heads"),
        ("past_key", np.zeros((1, 1, 4, 7), np.float32), "past keys and values have another size"),
        ("positions", np.full((1, 2), 99, np.int64), "a position is beyond the rotary tables"),
        ("positions", np.full((1, 2), -1, np.int64), "a position is beyond the rotary tables"),
    ],
)
def test_inputs_of_other_sizes_are_refused(name: str, array: npt.NDArray[Any], message: str, tmp_path: Path) -> None:
    a = Attention(2, 1, 8, turned=8, has_positions=True, bias="one", limit=50)
    model = a.model()
    for port in [*model.graph.input, *model.graph.output]:
        port.type.tensor_type.ClearField("shape")
    graph = LoadedGraph(saved(tmp_path, model), threads=1)
    given = feeds(a, text(a, 1, 6), Cache.empty(a, 1, 8), [slice(2, 4)], 4)
    assert len(graph.run(given, OUTPUTS)) == 3
    with pytest.raises(EdgellmError, match=message):
        graph.run({**given, name: array}, OUTPUTS)


def test_all_but_the_type_of_the_cache_stays_as_it_is(tmp_path: Path) -> None:
    before = Attention(turned=8).model()
    changed = with_kernels(saved(tmp_path, before), "bfloat16")
    assert changed is not None
    after = onnx.load_from_string(changed)
    caches = ("past_key", "past_value", *OUTPUTS[1:])
    for port in [*after.graph.input, *after.graph.output]:
        assert (port.type.tensor_type.elem_type == TensorProto.UINT16) == (port.name in caches)
    (node,) = after.graph.node
    assert (node.op_type, node.domain) == ("AttentionBfloat16", "edgellm")
    node.op_type, node.domain = "GroupQueryAttention", "com.microsoft"
    del after.opset_import[-1]
    assert with_types(after, TensorProto.FLOAT, *caches) == before
