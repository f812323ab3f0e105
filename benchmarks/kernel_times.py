"""edgellm's kernels beside ONNX Runtime's, operator by operator: linear layers and attention.

    python benchmarks/kernel_times.py [--threads N] [--only linear|attention]

For prompts and single tokens, in the shapes of SmolLM2-135M, Qwen2.5-0.5B and, without a cache, MiniLM and BERT-base.
Each is a graph of one operator; the two take turns; the shortest of 11 rounds each. Prints tables. Takes two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgellm.ort.binding import Binding
from edgellm.ort.kernels import KernelChoice
from edgellm.ort.loaded_graph import LoadedGraph

Runs = dict[KernelChoice, Callable[[], Any]]

CHOICES: tuple[KernelChoice, ...] = ("auto", "off")

ROUNDS = 11
ROUND_OPERATIONS = 2e8
# Rows, inputs, outputs, bits, block.
CASES = (
    (128, 576, 1536, 8, 64), (128, 1536, 576, 8, 64), (512, 576, 1536, 8, 64), (128, 896, 4864, 8, 64),
    (128, 576, 1536, 4, 32), (128, 896, 4864, 4, 32), (1, 576, 1536, 8, 64), (1, 896, 4864, 8, 64),
    (4, 896, 4864, 8, 64), (1, 896, 4864, 4, 32), (1, 576, 49152, 8, 32),
)  # fmt: skip


def write_layer(path: Path, depth: int, columns: int, bits: int, block: int) -> Path:
    rng, blocks = np.random.default_rng(0), -(-depth // block)
    weights = rng.integers(0, 256, (columns, blocks, block * bits // 8), np.uint8)
    scales = rng.uniform(0.001, 0.02, (columns, blocks)).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=depth, N=columns, bits=bits, block_size=block,
        accuracy_level=4,
    )  # fmt: skip
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "length", size])
        for name, size in (("x", depth), ("y", columns))
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(scales, "s")]
    graph = helper.make_graph([node], "layer", ports[:1], ports[1:], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@dataclass(frozen=True)
class Heads:
    """Attention of `new` tokens behind `past`. `cache`: "float32", "int8", or "" for all to all, in `batch` rows."""

    heads: int
    kv_heads: int
    depth: int
    past: int
    new: int
    cache: str = "float32"
    batch: int = 1

    @property
    def total(self) -> int:
        return self.past + self.new

    @property
    def operations(self) -> int:
        return self.batch * self.new * self.total * self.heads * self.depth

    def write(self, path: Path) -> Path:
        node, ports = self._behind_cache() if self.cache else self._all_to_all()
        kind = TensorProto.INT8 if self.cache == "int8" else TensorProto.FLOAT
        types = {"past_key": kind, "past_value": kind, "present_key": kind, "present_value": kind}
        types |= dict.fromkeys(("seqlens", "total", "mask"), TensorProto.INT32)
        values = {
            name: helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None)
            for name in [*ports, *node.output]
        }
        constants = [numpy_helper.from_array(array, name) for name, array in self._constants().items()]
        graph = helper.make_graph(
            [node], "attention", [values[name] for name in ports], [values[name] for name in node.output], constants
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    def _behind_cache(self) -> tuple[onnx.NodeProto, list[str]]:
        ports = ["query", "past_key", "past_value", "seqlens", "total"]
        names = ["query", "", "", "past_key", "past_value", "seqlens", "total", "cos", "sin"]
        quantized: dict[str, Any] = {
            "k_quant_type": "PER_CHANNEL",
            "v_quant_type": "PER_CHANNEL",
            "kv_cache_bit_width": 8,
        }
        int8 = self.cache == "int8"
        node = helper.make_node(
            "GroupQueryAttention", names + (["", "", "", "k_scale", "v_scale"] if int8 else []),
            ["y", "present_key", "present_value"], domain="com.microsoft", num_heads=self.heads,
            kv_num_heads=self.kv_heads, do_rotary=1, **(quantized if int8 else {}),
        )  # fmt: skip
        return node, ports

    def _all_to_all(self) -> tuple[onnx.NodeProto, list[str]]:
        names = ["query", "key", "value", "", "mask"]
        node = helper.make_node("MultiHeadAttention", names, ["y"], domain="com.microsoft", num_heads=self.heads)
        return node, [name for name in names if name]

    def _constants(self) -> dict[str, npt.NDArray[np.float32]]:
        if not self.cache:
            return {}
        angles = np.arange(self.total)[:, None] * 10000.0 ** -(np.arange(self.depth // 2) / (self.depth // 2))
        scale = np.full((1, self.kv_heads, 1, self.depth), 0.03, np.float32)
        scales = {"k_scale": scale, "v_scale": scale} if self.cache == "int8" else {}
        return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32), **scales}

    def bound(self, graph: LoadedGraph) -> Binding:
        """A run in place, of random numbers."""
        rng, binding = np.random.default_rng(1), graph.bind()
        inner = self.heads * self.depth
        if not self.cache:
            for name in ("query", "key", "value"):
                binding.input(name, rng.normal(size=(self.batch, self.new, inner)).astype(np.float32))
            binding.input("mask", np.ones((self.batch, self.new), np.int32))
        else:
            row = inner + 2 * self.kv_heads * self.depth
            binding.input("query", rng.normal(size=(1, self.new, row)).astype(np.float32))
            binding.input("seqlens", np.array([self.total - 1], np.int32))
            binding.input("total", np.array([self.total], np.int32))
            for side in ("key", "value"):
                cache = rng.normal(size=(1, self.kv_heads, self.total, self.depth)) * (
                    30 if self.cache == "int8" else 1
                )
                array = cache.astype(self.cache)
                binding.input(f"past_{side}", array)
                binding.output(f"present_{side}", array)
        binding.output("y", np.empty((self.batch, self.new, inner), np.float32))
        return binding


ATTENTIONS = (
    *(Heads(heads, kv_heads, 64, past, new) for heads, kv_heads in ((9, 3), (14, 2))
      for past, new in ((0, 128), (0, 512), (0, 2048), (1536, 512), (128, 1), (512, 1), (2048, 1), (8000, 1))),
    Heads(9, 3, 64, 0, 512, "int8"), Heads(9, 3, 64, 2048, 1, "int8"), Heads(9, 3, 64, 8000, 1, "int8"),
    Heads(12, 12, 32, 0, 128, ""), Heads(12, 12, 32, 0, 128, "", 8), Heads(12, 12, 64, 0, 128, ""),
    Heads(12, 12, 64, 0, 512, ""),
)  # fmt: skip


def linear_runs(path: Path, rows: int, depth: int, threads: int) -> Runs:
    x = np.random.default_rng(1).normal(size=(1, rows, depth)).astype(np.float32)
    graphs = {choice: LoadedGraph(path, threads=threads, kernels=choice) for choice in CHOICES}
    return {choice: partial(graph.run, {"x": x}, ["y"]) for choice, graph in graphs.items()}


def attention_runs(path: Path, heads: Heads, threads: int) -> Runs:
    return {choice: heads.bound(LoadedGraph(path, threads=threads, kernels=choice)).run for choice in CHOICES}


def milliseconds(runs: Runs, times: int) -> tuple[float, float]:
    """The shortest time of a run, of edgellm's kernels and of ONNX Runtime's."""
    shortest = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for choice, run in runs.items():
            run()
            start = time.perf_counter()
            for _ in range(times):
                run()
            shortest[choice] = min(shortest[choice], (time.perf_counter() - start) / times)
    return shortest["auto"] * 1e3, shortest["off"] * 1e3


def measure_linear(folder: Path, threads: int) -> None:
    print("| rows, inputs, outputs | bits, block | BlockLinear ms | MatMulNBits ms | ratio |\n|---|---|---|---|---|")
    for rows, depth, columns, bits, block in CASES:
        path = write_layer(folder / "layer.onnx", depth, columns, bits, block)
        runs = linear_runs(path, rows, depth, threads)
        ours, theirs = milliseconds(runs, max(3, int(ROUND_OPERATIONS / (rows * depth * columns))))
        shape = f"{rows}, {depth}, {columns}"
        print(f"| {shape} | {bits}, {block} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |", flush=True)


def measure_attention(folder: Path, threads: int) -> None:
    print("| heads | past, new | cache | ours ms | ONNX Runtime's ms | ratio |\n|---|---|---|---|---|---|")
    for each in ATTENTIONS:
        runs = attention_runs(each.write(folder / "attention.onnx"), each, threads)
        ours, theirs = milliseconds(runs, min(200, max(1, int(ROUND_OPERATIONS / each.operations))))
        shape = f"{each.heads} over {each.kv_heads} of {each.depth} | {each.past}, {each.new}"
        cache = each.cache or f"none, {each.batch} rows"
        print(f"| {shape} | {cache} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("linear", "attention"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "attention":
            measure_linear(Path(folder), options.threads)
        if options.only != "linear":
            measure_attention(Path(folder), options.threads)


if __name__ == "__main__":
    main()
