"""Many clients at once: edgellm's engine beside OpenVINO's continuous batching and llama.cpp's server.

    python benchmarks/serve.py [--clients 1,8,32] [--rounds 3] [--plot serve.png]
    python benchmarks/serve.py --systems edgellm --package PKG --clients 1,8 --prompts 16,128

A client sends its next request when its last one is answered. Prompts and answers have mixed lengths, the same for all
systems, and no two prompts begin alike. Systems and numbers of clients take turns, round by round, each system loaded
in a process of its own; figures are medians of the rounds. PKG may be an encoder-decoder, whose prompts are sources.
Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models import MODELS
from rendering import processor
from systems import OWN, SYSTEMS
from workers import Failed, Start, Worker

BFLOAT16 = f"{OWN}-bfloat16"  # with a cache of bfloat16; not among those that run by default
WORKERS = {OWN: "load_own.py", "openvino": "load_ov.py", "llama.cpp": "load_llamacpp.py"}
PROMPTS, ANSWERS = [16, 384], [16, 128]  # tokens: from, to, where the command does not say
REQUESTS = 24  # of a round; more where there are more clients
MEASURES = {
    "tokens_per_s": "new tokens/s", "cpu_ms": "CPU per token, ms",
    "first_p50_s": "first token p50, s", "first_p95_s": "first token p95, s",
    "token_p50_ms": "per token p50, ms", "total_p95_s": "whole answer p95, s", "peak_rss_mb": "peak RSS, MiB",
}  # fmt: skip
Figures = Mapping[str, list[float]]


@dataclass(frozen=True)
class Lengths:
    """In tokens, from and to."""

    prompts: Sequence[int]
    answers: Sequence[int]


def schedule(clients: int, lengths: Lengths, seed: int) -> list[tuple[int, int]]:
    """The requests' lengths: of the prompt, and of the answer."""
    draw = random.Random(seed)
    return [(draw.randint(*lengths.prompts), draw.randint(*lengths.answers)) for _ in range(max(REQUESTS, 2 * clients))]


def figures(requests: Sequence[tuple[int, int]], answer: Mapping[str, Any]) -> dict[str, float]:
    first, total = answer["first_token_s"], answer["total_s"]
    new = [count for _, count in requests]
    per_token = [(whole - begun) / (count - 1) for whole, begun, count in zip(total, first, new, strict=True)]
    return {
        "tokens_per_s": sum(new) / answer["seconds"],
        "cpu_ms": 1000 * answer["cpu_s"] / sum(new),
        "first_p50_s": statistics.median(first),
        "first_p95_s": _p95(first),
        "token_p50_ms": 1000 * statistics.median(per_token),
        "total_p95_s": _p95(total),
        "peak_rss_mb": answer["peak_rss_mb"],
    }


def measure(
    workers: Sequence[Worker], each: Sequence[int], lengths: Lengths, rounds: int
) -> dict[int, dict[str, dict[str, list[float]]]]:
    """{clients: {system: {measure: [a value for each round]}}}; a first round warms up."""
    found: dict[int, dict[str, dict[str, list[float]]]]
    found = {clients: {worker.name: {} for worker in workers} for clients in each}
    first = 0  # of the prompts' numbers: no prompt comes again, a beginning that is known would not be read
    for turn in range(rounds + 1):
        for clients in each:
            requests = schedule(clients, lengths, seed=turn)
            for worker in workers if turn % 2 else reversed(workers):
                values = figures(requests, worker.serve(clients, requests, first))
                for name, value in values.items() if turn else ():
                    found[clients][worker.name].setdefault(name, []).append(value)
            first += len(requests)
            print(f"{clients} clients, round {turn} of {rounds}", file=sys.stderr)
    return found


def table(results: Mapping[int, Mapping[str, Figures]]) -> str:
    lines = [f"| clients | system | {' | '.join(MEASURES.values())} |", f"|---|---|{'---|' * len(MEASURES)}"]
    for clients, systems in results.items():
        for system, values in systems.items():
            cells = [_cell(name, values, systems[OWN]) for name in MEASURES]
            lines.append(f"| {clients} | {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(measure: str, values: Figures, own: Figures) -> str:
    """The median and, of a peer's speed, edgellm's over it, round by round."""
    text = f"{statistics.median(values[measure]):.4g}"
    if measure != "tokens_per_s" or values is own:
        return text
    ratios = [ours / theirs for ours, theirs in zip(own[measure], values[measure], strict=True)]
    return f"{text} ({statistics.median(ratios):.2f}x)"


def plot(results: Mapping[int, Mapping[str, Figures]], file: Path) -> None:
    """Throughput, and the time to the first token, against the number of clients."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ("tokens_per_s", "first_p95_s", "total_p95_s")
    figure, axes = plt.subplots(1, len(shown), figsize=(12, 3.6), layout="constrained")
    for axis, name in zip(axes, shown, strict=True):
        for system in next(iter(results.values())):
            medians = [statistics.median(one[system][name]) for one in results.values()]
            axis.plot(list(results), medians, "o-", label=system)
        axis.set(xlabel="clients", title=MEASURES[name], xscale="log")
        axis.set_ylim(bottom=0)
    axes[0].legend()
    figure.savefig(file, dpi=120)


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=MODELS, default="smollm2")
    add("--clients", type=_numbers, default=[1, 8, 32], metavar="N,...", help="at once (1,8,32)")
    add("--rounds", type=int, default=3, metavar="N", help="after one warm-up round (3)")
    add("--threads", type=int, default=2, metavar="N", help="of every system (2)")
    add(
        "--systems",
        default=",".join(WORKERS),
        metavar="NAME,...",
        help=f"default: {','.join(WORKERS)}; also {BFLOAT16}",
    )
    add("--package", type=Path, metavar="DIR", help="this package as edgellm, instead of one exported now")
    add("--prompts", type=_numbers, default=PROMPTS, metavar="FROM,TO", help="tokens of a prompt or source (16,384)")
    add("--answers", type=_numbers, default=ANSWERS, metavar="FROM,TO", help="tokens of an answer (16,128)")
    add("--plot", type=Path, metavar="FILE.png", help="throughput and latencies against clients; needs matplotlib")
    arguments = parser.parse_args()
    model = MODELS[arguments.model]
    title = f"{model.title} int8" if arguments.package is None else arguments.package.name
    lengths = Lengths(arguments.prompts, arguments.answers)
    with ExitStack() as running:
        workers = []
        for name in arguments.systems.split(","):
            own = name in (OWN, BFLOAT16)
            worker = "load_own_bfloat16.py" if name == BFLOAT16 else WORKERS[name]
            system = replace(SYSTEMS[OWN if own else name], worker=worker)
            files = arguments.package if own and arguments.package else system.convert(model, "int8")
            start = Start(name, system, files, arguments.threads, lengths.prompts[1] + lengths.answers[1])
            try:
                workers.append(running.enter_context(closing(start.worker())))
            except Failed as failure:
                print(f"{name}: {failure}", file=sys.stderr)
        results = measure(workers, arguments.clients, lengths, arguments.rounds)
    print(f"{title}, {arguments.threads} threads, {processor()}\n\n{table(results)}\n")
    print(json.dumps({"model": title, "threads": arguments.threads, "results": results}))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
