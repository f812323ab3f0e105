"""What a change of the kernels makes of whole models: two builds of the library in one process, in turns.

    pip install --no-deps --target before ./kernels                      # in a checkout of the commit before
    python benchmarks/kernel_change.py before/edgellm_kernels/edgellm_kernels.so PKG [PKG ...]
        [--tokens 128] [--batch 1] [--rows 0] [--kv-cache auto] [--threads 2] [--rounds 101]

Both have to have the same operators. For each package: median milliseconds of a prompt, of a token for each of ROWS
sequences behind so many tokens, or of an encoder's batch, with the library before and with the installed one, the
median of the rounds' ratios, and whether the results have the same bits. Rounds that lie side by side show changes of
one percent where neighbours make the machine itself a third slower now and then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import numpy.typing as npt

import edgellm
from edgellm.ort import kernels

Run = Callable[[], Any]


def runs_of(package: str, libraries: list[Path], options: argparse.Namespace) -> list[Run]:
    """A run of the package on each of the libraries."""
    installed, rng = kernels.open_library(), np.random.default_rng(0)
    texts = rng.integers(1000, 20000, (options.rows or options.batch, options.tokens))
    runs = list[Run]()
    for path in libraries:
        kernels.library = lambda path=path: replace(installed, path=path)  # type: ignore[assignment]
        model = edgellm.load(package, threads=options.threads, kv_cache=options.kv_cache)
        runs.append(run_of(model, texts, options.rows))
    return runs


def run_of(model: Any, texts: npt.NDArray[np.int64], rows: int) -> Run:
    if isinstance(model, edgellm.Model):
        return step_of(model, texts) if rows else lambda: model.logits(texts[0].tolist())[-1:]
    return lambda: np.concatenate([result.logits for result in model.run(texts.tolist())])


def step_of(model: Any, texts: npt.NDArray[np.int64]) -> Run:
    """Of a sequence for each text, the same token for all; a sequence is longer after each run."""
    engine = model.new_engine()
    engine.prefill(list(texts))
    return lambda: engine.decode(np.full(len(texts), 1000)).copy()


def compare(runs: list[Run], rounds: int) -> str:
    before, now = (np.asarray(run()) for run in runs)
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        for index in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            runs[index]()
            times[index].append(time.perf_counter() - start)
    medians = [f"{1e3 * statistics.median(each):.2f}" for each in times]
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return f"{medians[0]} | {medians[1]} | {ratio:.3f} | {'yes' if np.array_equal(before, now) else 'no'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1, help="texts of an encoder's run")
    parser.add_argument("--rows", type=int, default=0, help="a step of so many sequences, not a prompt")
    parser.add_argument("--kv-cache", default="auto", choices=("auto", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=101)
    options = parser.parse_args()
    libraries = [options.library.resolve(), kernels.open_library().path]
    print("| package | before, ms | now, ms | faster by | same bits |\n|---|---|---|---|---|")
    for package in options.packages:
        runs = runs_of(package, libraries, options)
        print(f"| {Path(package).name} | {compare(runs, options.rounds)}", flush=True)


if __name__ == "__main__":
    main()
