"""A batch over several workers: measured from 1 to 4, and simulated beyond.

    python benchmarks/scale.py PACKAGE [--workers 1,2,3,4] [--each 96] [--rounds 3] [--update-docs]

A Ray cluster of this machine alone has workers of one thread each, as `edgellm batch --ray` has with `--threads 1`. The
job grows with the workers: each has as many lines. Tokens are counted from the moment when all workers have their model
until the last outcome, so that the end, where workers run out of lines, is in it. Numbers of workers take turns, round
by round; figures are medians of the rounds.

Where there are more workers than processors, these share them: the efficiency there says what Ray and the journal's
process take, not what more machines give. `simulation.py` says how what lies beyond is simulated, from the times of one
worker; its figures for what was measured stand beside it. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgellm.bulk.forms import Requests
from edgellm.bulk.generating import Settings
from edgellm.bulk.lines import Line
from edgellm.bulk.plan import Plan
from edgellm.ray.fleet import Fleet
from edgellm.ray.library import ray_library
from edgellm.ray.orders import order_of
from edgellm.ray.worker import Order
from rendering import processor
from simulation import Times, efficiency, seconds_of

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
ROWS = 8  # lines that a worker decodes together
CACHE = 256 << 20  # bytes of keys and values of each
SIMULATED = (4, 16, 64, 256)
JOBS = (1_000, 10_000, 100_000)  # lines
Measured = Mapping[int, Sequence[Mapping[str, Any]]]


def lines_of(count: int) -> list[Line]:
    """Prompts and answers of several lengths."""
    return [Line(number, f"line {number}", request(number), 1) for number in range(count)]


def request(number: int) -> dict[str, Any]:
    prompt = f"{number}: about this number" + " and its neighbours" * (number % 7)
    tokens = 16 + 16 * (number % 4)
    body = {"prompt": prompt, "max_tokens": tokens, "min_new_tokens": tokens, "temperature": 0}
    return {"custom_id": f"{number}", "url": "/v1/completions", "body": body}


def timed(order: Order, workers: int, lines: Sequence[Line]) -> dict[str, Any]:
    """Tokens a second, and what the simulation needs."""
    begun = time.perf_counter()
    ready, used, tokens, ended = 0.0, 0.0, 0, []
    fleet = Fleet(order, workers, len(lines))
    for outcome in fleet.run(iter(lines)):
        if outcome is not None and outcome.error is not None:
            raise SystemExit(f"{outcome.line.place}: {outcome.error}")
        if not ready and all(seat.loading is None for seat in fleet._seats):
            ready, used = time.perf_counter(), time.process_time()
        elif ready and outcome is not None:
            ended.append(time.perf_counter())
            tokens += outcome.new_tokens
    seconds = ended[-1] - ready
    return {
        "tokens_per_s": tokens / seconds,
        "seconds": seconds,
        "start_s": ready - begun,
        "driver_s": (time.process_time() - used) / len(ended),
        "gaps": [after - before for before, after in pairwise(ended[:-ROWS])],  # while all rows are in use
    }


def measure(order: Order, counts: Sequence[int], each: int, rounds: int) -> Measured:
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for turn in range(rounds):
        for count in counts if turn % 2 else reversed(counts):
            found[count].append(timed(order, count, lines_of(count * each)))
            print(f"round {turn + 1} of {rounds}, {count} workers", file=sys.stderr)
    return found


def times_of(order: Order, runs: Sequence[Mapping[str, Any]]) -> Times:
    """What the simulation takes from one worker's runs, and from lines that are alone in an engine."""
    single = replace(order, plan=replace(order.plan, settings=replace(order.plan.settings, max_rows=1)))
    alone = timed(single, 1, lines_of(12))["gaps"] or [0.0]
    return Times(
        gaps=[gap for run in runs for gap in run["gaps"]],
        alone_s=statistics.fmean(alone),
        start_s=statistics.median(run["start_s"] for run in runs),
        driver_s=statistics.median(run["driver_s"] for run in runs),
        rows=ROWS,
    )


def tables(found: Measured, times: Times, each: int, cores: int) -> str:
    rates = {count: statistics.median(run["tokens_per_s"] for run in runs) for count, runs in found.items()}
    warm = replace(times, start_s=0.0)
    rows = [
        f"{processor()}, {cores} processors, {each} lines for each worker, medians of {len(found[1])} rounds; "
        f"{ROWS} rows a worker.\n",
        "| workers | tokens/s | over one | efficiency | of the processors there are | simulated |",
        "|---|---|---|---|---|---|",
    ]
    for count, rate in rates.items():
        gain = rate / rates[1]
        simulated = seconds_of(warm, 1, each) / seconds_of(warm, count, count * each)
        shown = f"{gain:.2f}x | {gain / count:.2f} | {gain / min(count, cores):.2f} | {simulated:.2f}"
        rows.append(f"| {count} | {rate:.0f} | {shown} |")
    rows += [
        f"\nSimulated, with the start of the workers ({times.start_s:.1f} s): the efficiency.\n",
        "| lines | " + " | ".join(f"{count} workers" for count in SIMULATED) + " |",
        "|---" * (len(SIMULATED) + 1) + "|",
    ]
    for job in JOBS:
        shown = " | ".join(f"{efficiency(times, count, job):.2f}" for count in SIMULATED)
        rows.append(f"| {job:,} | {shown} |")
    return "\n".join(rows)


def update(page: Path, text: str) -> None:
    """Put the tables between the page's marks."""
    block = re.compile(r"(?<=<!-- begin scale -->\n).*?(?=<!-- end scale -->)", re.DOTALL)
    page.write_text(block.sub(lambda _: f"{text}\n", page.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("package", type=Path)
    add("--workers", default="1,2,3,4", help="numbers of workers; 1 among them")
    add("--each", type=int, default=96, help="lines for each worker")
    add("--rounds", type=int, default=3)
    add("--update-docs", action="store_true", help="put the tables into docs/scale.md")
    arguments = parser.parse_args()
    if arguments.each < 4 * ROWS:
        parser.error(
            f"--each is {arguments.each}, expected at least {4 * ROWS}: fewer lines never fill a worker's rows"
        )
    counts = sorted({1, *map(int, arguments.workers.split(","))})
    ray = ray_library()
    ray.init(address="local", num_cpus=max(counts), include_dashboard=False, log_to_driver=False)
    form = Requests.of("text", arguments.package.name, "scale")
    plan = Plan(arguments.package, form, Settings({}, ROWS, CACHE, 0), {})
    order = order_of(plan, 1, shared=True)
    found = measure(order, counts, arguments.each, arguments.rounds)
    times = times_of(order, found[1])
    text = tables(found, times, arguments.each, len(os.sched_getaffinity(0)))
    print(text)
    if arguments.update_docs:
        update(PAGE, text)
    print(json.dumps({"runs": found, "times": asdict(times)}))


if __name__ == "__main__":
    main()
