"""One linear layer: edgellm's BlockLinear beside ONNX Runtime's MatMulNBits.

    python benchmarks/kernels.py [--threads N]

For prompts and for single tokens, 8 and 4 bits, in the shapes of SmolLM2-135M and Qwen2.5-0.5B. The two take turns; the
shortest of 11 rounds each. Prints a table. Takes a minute.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgellm.ort.kernels import KernelChoice
from edgellm.ort.loaded_graph import LoadedGraph

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


def seconds(path: Path, rows: int, depth: int, threads: int, runs: int) -> dict[KernelChoice, float]:
    """The shortest time of a run, by which kernels."""
    x = np.random.default_rng(1).normal(size=(1, rows, depth)).astype(np.float32)
    choices: tuple[KernelChoice, ...] = ("auto", "off")
    graphs = {choice: LoadedGraph(path, threads=threads, kernels=choice) for choice in choices}
    shortest = dict.fromkeys(graphs, float("inf"))
    for _ in range(ROUNDS):
        for choice, graph in graphs.items():
            graph.run({"x": x}, ["y"])
            start = time.perf_counter()
            for _ in range(runs):
                graph.run({"x": x}, ["y"])
            shortest[choice] = min(shortest[choice], (time.perf_counter() - start) / runs)
    return shortest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    print("| rows, inputs, outputs | bits, block | BlockLinear ms | MatMulNBits ms | ratio |\n|---|---|---|---|---|")
    for rows, depth, columns, bits, block in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = write_layer(Path(folder) / "layer.onnx", depth, columns, bits, block)
            found = seconds(path, rows, depth, threads, max(3, int(ROUND_OPERATIONS / (rows * depth * columns))))
        ours, theirs = found["auto"] * 1e3, found["off"] * 1e3
        shape = f"{rows}, {depth}, {columns}"
        print(f"| {shape} | {bits}, {block} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
