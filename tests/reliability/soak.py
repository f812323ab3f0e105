"""Many generations of mixed kinds in one process: its memory must not grow, and no thread or handle may stay.

    python tests/reliability/soak.py --generations 20000 --plot docs/reliability-soak.png

Every second hundred of calls runs on four threads. After each hundred the process is looked at. The growth of its
memory is the median of the last tenth of the looks over that of the first tenth, behind a warm-up of calls of the same
kinds: until the largest of each kind have met, and memory that was given back lies as scattered as it will.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from edgellm.system.memory import return_freed_memory
from soak_calls import CALLS, Call, Models, load

BLOCK = 100  # calls between two looks
THREADS = 4
VARIANTS = 20  # of each kind of call
WARM_UP = 10_000  # calls, before those that count
GROWTH_LIMIT = 0.02
PAGE = 4096  # bytes


@dataclass(frozen=True)
class Look:
    """The process after so many calls. Bytes; `held` is what stays resident when garbage was collected and the
    allocator has given back what it keeps for later, `allocated` what malloc has handed out of it: what lies between
    two pieces in use, and cannot be given back, is not in there. `blocks` are Python's own small pieces of memory."""

    calls: int
    seconds: float
    resident: int
    held: int
    allocated: int
    blocks: int
    threads: int
    handles: int
    mappings: int
    objects: int


@dataclass(frozen=True)
class Soak:
    looks: tuple[Look, ...]
    before: Look  # with nothing loaded
    after: Look  # with everything dropped
    calls: Counter[str]
    seconds: float
    warm_up: int = 0  # calls

    @property
    def settled(self) -> Sequence[Look]:
        """The looks behind the warm-up."""
        return [each for each in self.looks if each.calls > self.warm_up]


@dataclass
class Results:
    """What each call gave when it came first."""

    known: dict[tuple[str, int], str] = field(default_factory=dict)

    def check(self, call: Call, variant: int, result: object) -> None:
        found = repr(result)
        first = self.known.setdefault((call.__name__, variant), found)
        if found != first:
            raise AssertionError(f"{call.__name__} {variant} gave {first} at first, now {found}")


def look(calls: int, started: float) -> Look:
    resident = _resident()
    gc.collect()
    return_freed_memory()
    maps = Path("/proc/self/maps").read_text().count("\n")
    threads, handles = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("task", "fd"))
    seconds = round(time.perf_counter() - started, 1)
    memory = (resident, _resident(), _allocated(), sys.getallocatedblocks())
    return Look(calls, seconds, *memory, threads, handles - 1, maps, len(gc.get_objects()))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _allocated() -> int:
    """Of all arenas, and what malloc has mapped. 0 where the C library is not glibc."""
    try:
        mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
    except (OSError, AttributeError):
        return 0
    mallinfo.restype = _MallInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def soak(
    packages: Path,
    generations: int,
    *,
    real: Path | None = None,
    seed: int = 0,
    leak: int = 0,
    warm_up: int = WARM_UP,
) -> Soak:
    """`leak`: bytes that each call leaves behind, to see that they are seen."""
    started = time.perf_counter()
    before = look(0, started)
    done, looks, results = Counter[str](), [], Results()
    left: list[bytes] = []
    models = load(packages, real)
    for number, calls in enumerate(blocks(warm_up + generations, Random(seed))):
        run(models, calls, results, threads=THREADS if number % 2 else 1)
        done.update(call.__name__ for call, _ in calls)
        left += [b"x" * leak for _ in calls] if leak else []
        looks.append(look(done.total(), started))
    del models
    gc.collect()
    after = look(done.total(), started)
    return Soak(tuple(looks), before, after, done, time.perf_counter() - started, warm_up)


def blocks(generations: int, draw: Random) -> Iterator[list[tuple[Call, int]]]:
    """Every call and variant in turn, in an order that changes each time."""
    every = [(call, variant) for call in CALLS for variant in range(VARIANTS)]
    order: list[tuple[Call, int]] = []
    for first in range(0, generations, BLOCK):
        size = min(BLOCK, generations - first)
        while len(order) < size:
            order += draw.sample(every, len(every))
        yield order[:size]
        del order[:size]


def run(models: Models, calls: Sequence[tuple[Call, int]], results: Results, *, threads: int) -> None:
    def one(item: tuple[Call, int]) -> None:
        call, variant = item
        results.check(call, variant, call(models, Random(f"{call.__name__} {variant}")))

    if threads == 1:
        for item in calls:
            one(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, calls))


def growth(values: Sequence[float]) -> float:
    """The median of the last tenth over that of the first, less one."""
    tenth = max(1, len(values) // 10)
    return statistics.median(values[-tenth:]) / statistics.median(values[:tenth]) - 1


def slope(looks: Sequence[Look]) -> float:
    """Bytes of `held` per call, a straight line through all looks."""
    if len(looks) < 2:
        return 0.0
    line = np.polyfit([each.calls for each in looks], [each.held for each in looks], 1)
    return float(line[0])


def problems(soak: Soak, limit: float) -> list[str]:
    """What must not be, each in a line."""
    found = []
    for name in ("resident", "held"):
        grown = growth([getattr(each, name) for each in soak.settled])
        if grown >= limit:
            found.append(f"{name} memory grew by {grown:.1%}, the limit is {limit:.0%}")
    for name in ("threads", "handles", "mappings"):
        counts = {getattr(each, name) for each in soak.settled}
        first, last = getattr(soak.settled[0], name), getattr(soak.looks[-1], name)
        if (len(counts) > 1 and name != "mappings") or last > first * (1 + limit):
            found.append(f"{name}: {sorted(counts)}, {first} at first and {last} at last")
        left = getattr(soak.after, name) - getattr(soak.before, name)
        if left > 0 and name != "mappings":
            found.append(f"{left} {name} left when all models were dropped")
    return found


def report(soak: Soak) -> str:
    first, last = soak.settled[0], soak.looks[-1]
    lines = [f"{last.calls} calls of {len(soak.calls)} kinds in {soak.seconds:.0f} s"]
    for name in ("resident", "held"):
        values = [getattr(each, name) for each in soak.settled]
        change, a, b = growth(values), min(values) / 2**20, max(values) / 2**20
        lines.append(f"{name} memory: {change:+.2%} behind the warm-up, {a:.1f} to {b:.1f} MiB")
    lines.append(f"slope of held memory: {slope(soak.settled):+.1f} bytes per call")
    for name in ("allocated", "blocks", "threads", "handles", "mappings", "objects"):
        before, after = getattr(soak.before, name), getattr(soak.after, name)
        counts = [getattr(each, name) for each in soak.settled]
        lines.append(
            f"{name}: {before} before the models were loaded, {getattr(first, name)} behind the warm-up, "
            f"{getattr(last, name)} at the end ({min(counts)} to {max(counts)}), {after} when they were dropped"
        )
    return "\n".join(lines)


def plot(soak: Soak, file: Path) -> None:
    """Memory against calls; needs matplotlib, which is imported only now."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    calls = [each.calls for each in soak.looks]
    for name, title in (("resident", "resident"), ("held", "resident, behind collection and malloc_trim")):
        axes.plot(calls, [getattr(each, name) / 2**20 for each in soak.looks], label=title, linewidth=1)
    axes.axvline(soak.settled[0].calls, color="gray", linestyle=":", label="end of the warm-up")
    axes.set(xlabel="calls", ylabel="MiB", ylim=(0, None), title=f"{calls[-1]} calls of {len(soak.calls)} kinds")
    axes.grid(True, alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(file, dpi=110)


def write(soak: Soak, file: Path) -> None:
    data = {"calls": dict(soak.calls), "before": asdict(soak.before), "after": asdict(soak.after)}
    file.write_text(json.dumps({**data, "looks": [asdict(each) for each in soak.looks]}) + "\n")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=20_000)
    parser.add_argument("--packages", type=Path, help="where the tiny packages are, or are to be made")
    parser.add_argument(
        "--real", type=Path, help="a decoder package of any size that takes one in ten of the decoders' calls"
    )
    parser.add_argument("--limit", type=float, default=GROWTH_LIMIT, help="of the growth, a share")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="calls before those that count")
    parser.add_argument("--leak", type=int, default=0, help="bytes that each call leaves: the soak must fail")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for every look")
    parser.add_argument("--plot", type=Path, help="a PNG")
    return parser.parse_args(words)


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        packages: Path = arguments.packages or Path(scratch)
        maker = Path(__file__).with_name("packages.py")
        subprocess.run([sys.executable, str(maker), str(packages)], check=True)
        found = soak(
            packages,
            arguments.generations,
            real=arguments.real,
            seed=arguments.seed,
            leak=arguments.leak,
            warm_up=arguments.warm_up,
        )
    print(report(found))
    if arguments.json:
        write(found, arguments.json)
    wrong = problems(found, arguments.limit)
    if arguments.plot:
        plot(found, arguments.plot)
    print("\n".join(f"FAILED: {line}" for line in wrong) or "nothing grew, nothing was left")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
