"""The lines of a batch given out to actors, and the outcomes taken in as they come.

The process that holds the journal is the only one that knows which line is where. An actor sends an outcome the moment
it has it; with one that dies, whether by itself or with its node, the lines that have no outcome yet are given to
others, and another actor is asked for. So a line is lost with no actor, and none can come twice: what an actor that was
given up still says is not listened to.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from edgellm.bulk.forms import failure
from edgellm.bulk.lines import Line, Outcome
from edgellm.errors import BatchError, EdgellmError, ProviderError
from edgellm.ray.library import ray_library
from edgellm.ray.worker import Order, Ready, Worker

TICK_S = 0.25  # without news
CALLS = 64  # portions that an actor has at once at most; others wait at its door
MOST_LOSSES = 3  # with so many actors a line is lost before it is taken to be why
MOST_DEATHS = 3  # for each actor, without an outcome from any between them; those of lines on trial do not count
PATIENCE_S = 900.0  # without any actor: a cluster may have to start machines first


NOT_YET = Ready(0, 0)


@dataclass(eq=False)
class Carried:
    """A line on its way. `losses`: actors that died while they had it."""

    line: Line
    losses: int = 0


@dataclass(eq=False)
class Seat:
    """An actor. `loading`: what says that it is ready, None when it has. `portions`: what it has not answered yet, by
    line number, for each call."""

    actor: Any
    loading: Any
    ready: Ready = NOT_YET
    portions: dict[Any, dict[int, Carried]] = field(default_factory=dict)

    @property
    def waitables(self) -> list[Any]:
        return [*self.portions, *([] if self.loading is None else [self.loading])]

    @property
    def carried(self) -> int:
        return sum(map(len, self.portions.values()))

    @property
    def is_on_trial(self) -> bool:
        """Whether it has a line that several died with."""
        return any(each.losses > 1 for portion in self.portions.values() for each in portion.values())


class Fleet:
    """Answers lines by `size` actors, as far as the cluster has room for them. Needs a connection to it."""

    tokens = (0, 0)  # what is under way is not known here

    def __init__(self, order: Order, size: int, todo: int) -> None:
        """`todo`: lines that will come."""
        self._order, self._size, self._left = order, size, todo
        self._ray = ray_library()
        options = {"num_cpus": order.threads, "max_concurrency": CALLS, "max_restarts": 0}
        self._worker = self._ray.remote(Worker).options(**options)
        self._seats: list[Seat] = []
        self._lines: Iterator[Line] = iter(())
        self._again: deque[Carried] = deque()
        self._suspects: deque[Carried] = deque()
        self._deaths = 0  # since the last outcome
        self._last_ready = time.monotonic()

    def run(self, lines: Iterator[Line]) -> Generator[Outcome | None]:
        """The outcomes as they come; None: nothing came for a while. Raises BatchError where no actor can be had, and
        what keeps a worker from loading the package."""
        self._lines = lines
        try:
            self._seats = [self._engaged() for _ in range(self._size)]
            while True:
                for seat in self._seats:
                    self._give(seat)
                if not self._left or not any(seat.waitables for seat in self._seats):  # fewer came than was said
                    return
                yield from self._news()
        finally:
            for seat in self._seats:
                self._ray.kill(seat.actor)

    def _engaged(self) -> Seat:
        actor = self._worker.remote()
        return Seat(actor, actor.load.options(max_task_retries=0).remote(self._order))

    # Giving

    def _give(self, seat: Seat) -> None:
        """Lines for an actor that has room: no more than its part of what is left, so that all end together."""
        if seat.loading is not None or seat.is_on_trial:
            return
        share = -(-self._left // self._size)
        room = min(seat.ready.window, share) - seat.carried
        while room >= seat.ready.portion or (room > 0 and seat.carried < seat.ready.portion):
            portion = self._next(min(room, seat.ready.portion), alone=not seat.carried)
            if not portion:
                return
            stream = seat.actor.answer.options(num_returns="streaming").remote([each.line for each in portion])
            seat.portions[stream] = {each.line.number: each for each in portion}
            if seat.is_on_trial:
                return
            room -= len(portion)

    def _next(self, count: int, *, alone: bool) -> list[Carried]:
        """Up to so many lines. Those that several actors died with come last, each `alone` on its actor."""
        portion = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        portion += [Carried(line) for line in islice(self._lines, count - len(portion))]
        if not portion and self._suspects and alone:
            portion.append(self._suspects.popleft())
        return portion

    # Taking

    def _news(self) -> Iterator[Outcome | None]:
        places = {waitable: seat for seat in self._seats for waitable in seat.waitables}
        ready, _ = self._ray.wait(list(places), num_returns=1, timeout=TICK_S)
        if ready:
            ready, _ = self._ray.wait(list(places), num_returns=len(places), timeout=0)
        for waitable in ready:
            if places[waitable] in self._seats:  # not given up meanwhile
                yield from self._taken(places[waitable], waitable)
        if not ready:
            self._check_patience()
            yield None

    def _taken(self, seat: Seat, waitable: Any) -> Iterator[Outcome]:
        """One piece of news."""
        errors = self._ray.exceptions
        try:
            if waitable is seat.loading:
                seat.ready, seat.loading = self._ray.get(waitable), None
                return
            outcome = self._ray.get(next(waitable))
        except StopIteration:
            self._again.extend(seat.portions.pop(waitable).values())
        except errors.RayTaskError as error:
            if isinstance(error.cause, EdgellmError):
                raise error.cause from error
            raise BatchError(f"a worker failed: {error.cause!r}; what is done is kept") from error
        except errors.RayError as error:
            yield from self._bury(seat, error)
        else:
            carried = seat.portions[waitable].pop(outcome.line.number)
            self._left, self._deaths = self._left - 1, 0
            yield replace(outcome, line=carried.line)

    def _bury(self, seat: Seat, error: Exception) -> Iterator[Outcome]:
        """An actor is given up: its lines are for others, and another one takes its place when there is room for it."""
        self._ray.kill(seat.actor)
        self._deaths += not seat.is_on_trial
        if self._deaths > MOST_DEATHS * self._size:
            raise BatchError(
                f"{self._deaths} workers died one after the other, the last with: {_first_line(error)}; see Ray's "
                "logs, or give each fewer CPUs or less memory; what is done is kept: run the same command again"
            ) from error
        self._seats[self._seats.index(seat)] = self._engaged()
        for portion in seat.portions.values():
            for each in portion.values():
                each.losses += 1
                if each.losses < MOST_LOSSES:
                    (self._suspects if each.losses > 1 else self._again).append(each)
                else:
                    self._left -= 1
                    yield failure(
                        each.line,
                        ProviderError(f"{each.losses} workers died while they had this line: {_first_line(error)}"),
                    )

    def _check_patience(self) -> None:
        now = time.monotonic()
        if any(seat.loading is None for seat in self._seats):
            self._last_ready = now
        elif now - self._last_ready > PATIENCE_S:
            raise BatchError(
                f"no worker was ready for {PATIENCE_S:.0f} s: each needs {self._order.threads} CPUs, and the cluster "
                f"has {self._ray.available_resources().get('CPU', 0):.0f} free; what is done is kept"
            )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
