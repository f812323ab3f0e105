"""Where the time of a decoder or encoder package goes, by ONNX Runtime's own profile: milliseconds per kind of node.

    python benchmarks/node_times.py PKG [--tokens 128] [--context 0] [--batch 1] [--threads 2]
        [--kernels off]

`--tokens 128` is a prompt, `--tokens 1 --context 128` a token behind one. Profiling adds a few microseconds to each
node. For packages with one graph, whose cache, if any, is float32.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

from edgellm.ort.kernels import exchange

WARM_UP, RUNS = 5, 20
PROJECTIONS = re.compile(
    r"qkv|q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|lm_head|"
    r"query|key|value|attention/output/dense|intermediate/dense|output/dense"
)
CACHE, CACHED = "past_key_values", "present"


def profile(graph: Path, tokens: int, context: int, batch: int, threads: int, kernels: bool) -> list[dict[str, Any]]:
    """The events of all runs, warm-up included."""
    with tempfile.TemporaryDirectory() as scratch:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        ours = exchange(graph, options) if kernels else None
        model = str(graph) if ours is None else ours.graph
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        bind(session, binding, tokens, context, batch)
        for _ in range(WARM_UP + RUNS):
            session.run_with_iobinding(binding)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def bind(session: ort.InferenceSession, binding: ort.IOBinding, tokens: int, context: int, batch: int) -> None:
    """Random tokens, nothing masked, a cache of zeros."""
    ids = np.random.default_rng(0).integers(5, 1000, (batch, tokens))
    known = {"input_ids": ids, "attention_mask": np.ones((batch, context + tokens), np.int64)}
    for value in session.get_inputs():
        if value.name.startswith(CACHE):
            cache = np.zeros((batch, value.shape[1], context + tokens, value.shape[3]), np.float32)
            held = ort.OrtValue.ortvalue_from_numpy(cache)
            binding.bind_ortvalue_input(value.name, held)
            binding.bind_ortvalue_output(value.name.replace(CACHE, CACHED), held)
        else:
            binding.bind_cpu_input(value.name, known.get(value.name, np.zeros_like(ids)))
    for value in session.get_outputs():
        if not value.name.startswith(CACHED):
            binding.bind_output(value.name)


def kind_of(event: dict[str, Any]) -> str:
    operator = str(event["args"]["op_name"])
    found = PROJECTIONS.search(event["name"]) if "MatMul" in operator or operator == "BlockLinear" else None
    return f"{operator} {found[0]}" if found else operator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kernels", choices=("auto", "off"), default="auto")
    a = parser.parse_args()
    events = profile(a.package / "model.onnx", a.tokens, a.context, a.batch, a.threads, a.kernels == "auto")
    times: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[kind_of(event)][event["name"]].append(event["dur"])
    rows = [
        (sum(statistics.median(runs[WARM_UP:]) for runs in nodes.values()) / 1000, len(nodes), kind)
        for kind, nodes in times.items()
    ]
    runs = [event["dur"] for event in events if event["name"] == "model_run"][WARM_UP:]
    print(f"a run {statistics.median(runs) / 1000:.1f} ms, its nodes {sum(row[0] for row in rows):.1f} ms\n")
    print("| nodes | | ms |\n|---|---|---|")
    for total, count, kind in sorted(rows, reverse=True):
        print(f"| {kind} | {count} | {total:.2f} |")


if __name__ == "__main__":
    main()
