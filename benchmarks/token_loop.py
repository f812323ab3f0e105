"""What `generate` takes of a token beside the run of the graph: Python's share.

    python benchmarks/token_loop.py [PACKAGE] [--threads N]

Greedy, 128 tokens behind a prompt of 64, medians of 9; once with `min_new_tokens`, whose processor copies the logits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import edgellm
from decoders import load_decoder
from edgellm.ort.loaded_graph import LoadedGraph
from environments import CACHE

TOKENS, ROUNDS = 128, 9


class Stopwatch:
    """Seconds inside the graph's runs since `seconds` was set to zero."""

    def __init__(self) -> None:
        self.seconds = 0.0
        run = LoadedGraph.run_bound

        def timed(graph: LoadedGraph, binding: object) -> None:
            start = time.perf_counter()
            run(graph, binding)
            self.seconds += time.perf_counter() - start

        LoadedGraph.run_bound = timed  # type: ignore[method-assign, assignment]


def shares(model: edgellm.Model, watch: Stopwatch, **options: Any) -> tuple[float, float]:
    """Microseconds of a token in all, and of them outside the graph; medians."""
    whole, outside = [], []
    for turn in range(ROUNDS):
        prompt = [(7 * i + turn) % 40000 + 300 for i in range(64)]  # each new, so that none is in the cache
        watch.seconds, start = 0.0, time.perf_counter()
        count = len(model.generate(prompt, max_new_tokens=TOKENS, **options).tokens)
        seconds = time.perf_counter() - start
        whole.append(seconds / count * 1e6)
        outside.append((seconds - watch.seconds) / count * 1e6)
    return median(whole), median(outside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path, default=CACHE / "packages" / "smollm2-135m-int8")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    model, watch = load_decoder(asked.package, threads=asked.threads), Stopwatch()
    cases: tuple[dict[str, int], ...] = ({}, {"min_new_tokens": TOKENS})
    for options in cases:
        whole, outside = shares(model, watch, **options)
        print(f"{options or 'greedy'}: {whole:.0f} us a token, {outside:.0f} outside the graph ({outside / whole:.1%})")


if __name__ == "__main__":
    main()
