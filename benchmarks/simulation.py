"""A batch on more workers than there are here: events in the order of time, with times that were measured.

- A worker with all rows in use ends a line after one of the measured gaps between two outcomes of one worker, drawn by
  chance. With fewer rows it is slower a line: what a line takes grows evenly from one alone to all rows.
- The process that holds the journal does one thing at a time: each outcome costs it its measured processor time, and
  only then are new lines given, by the rules of `edgellm.ray.fleet`: portions of `rows` lines, four of them at hand,
  and no more than the worker's part of what is left.
- All workers start at once and take the measured time for it.

Left out: the network (an outcome is a few kilobytes), the package's way to each node, nodes that differ or die.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

AHEAD = 4  # portions that a worker has at hand, as edgellm.bulk.generating has it


@dataclass(frozen=True)
class Times:
    """Seconds. `gaps`: between two outcomes of one worker with all rows in use. `alone_s`: a line with no other.
    `start_s`: until a worker has its model. `driver_s`: the journal's process, for each line."""

    gaps: Sequence[float]
    alone_s: float
    start_s: float
    driver_s: float
    rows: int

    def slower(self, lines: int) -> float:
        """How much longer a gap is with so many lines than with all rows in use."""
        full = self.rows * statistics.fmean(self.gaps)
        used = min(lines, self.rows)
        each = self.alone_s + (full - self.alone_s) * (used - 1) / max(self.rows - 1, 1)
        return (each / used) / (full / self.rows)


def efficiency(times: Times, workers: int, lines: int) -> float:
    """Of a job of so many lines: 1 where `workers` are as many times faster than one."""
    return seconds_of(times, 1, lines) / (workers * seconds_of(times, workers, lines))


def seconds_of(times: Times, workers: int, lines: int) -> float:
    chance = random.Random(0)
    slower = [times.slower(count) for count in range(1, times.rows + 1)]
    to_give, left, free_at = lines, lines, times.start_s
    carried = [0] * workers
    is_busy = [False] * workers
    events: list[tuple[float, int]] = []  # (when, worker): it has ended a line

    def give(worker: int, now: float) -> None:
        nonlocal to_give
        room = min(AHEAD * times.rows, -(-left // workers)) - carried[worker]
        if room >= times.rows or carried[worker] < times.rows:
            given = max(0, min(room, to_give))
            to_give, carried[worker] = to_give - given, carried[worker] + given
        if carried[worker] and not is_busy[worker]:
            begin(worker, now)

    def begin(worker: int, now: float) -> None:
        is_busy[worker] = True
        gap = chance.choice(times.gaps) * slower[min(carried[worker], times.rows) - 1]
        heapq.heappush(events, (now + gap, worker))

    for worker in range(workers):
        give(worker, times.start_s)
    while left:
        now, worker = heapq.heappop(events)
        is_busy[worker] = False
        carried[worker] -= 1
        if carried[worker]:
            begin(worker, now)
        left -= 1
        free_at = max(free_at, now) + times.driver_s
        give(worker, free_at)
    return free_at
