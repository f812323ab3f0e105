"""What an actor is: a model and its engine, which answer the lines of several calls together."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgellm.bulk.lines import Line, Outcome
from edgellm.bulk.plan import Plan, identity_of
from edgellm.errors import BatchError
from edgellm.loading import read_package
from edgellm.ray.parcel import Parcel, unpacked
from edgellm.serving.engine import MEMORY
from edgellm.system.memory import available_memory_bytes
from edgellm.version import __version__


@dataclass(frozen=True)
class Order:
    """What a worker is made of. `parcel`: the package, None where each node can read it at the plan's path. `identity`:
    of its files. `version`: of edgellm, which all must have. `threads`: CPUs of a worker."""

    plan: Plan
    parcel: Parcel | None
    identity: str
    threads: int
    version: str = __version__

    def settled(self) -> Plan:
        """The plan as it is on this node. Raises BatchError, and what reading the package does."""
        if self.version != __version__:
            raise BatchError(
                f"{platform.node()} has edgellm {__version__}, and {self.version} is asked for; install the same "
                "version on all machines"
            )
        package = self.plan.package if self.parcel is None else unpacked(self.parcel)
        if self.parcel is None and identity_of(*read_package(package)) != self.identity:
            raise BatchError(f"{package} on {platform.node()} is another package than here; share one, or have it sent")
        settings = self.plan.settings
        if settings.max_cache_bytes is None:
            settings = replace(settings, max_cache_bytes=cache_bytes(self.threads))
        return replace(self.plan, package=package, settings=settings, threads=self.threads)


def cache_bytes(threads: int) -> int:
    """The usual share of the memory for keys and values, divided among as many workers as the node has room for."""
    share = min(1.0, threads / (os.cpu_count() or 1))
    return max(1, int((available_memory_bytes() or 1 << 32) * MEMORY * share))


@dataclass(frozen=True)
class Ready:
    """A worker has its model. `window`: lines that it may have at hand. `portion`: how many are best given at once."""

    window: int
    portion: int


class Worker:
    """Has several calls at the same time."""

    def load(self, order: Order) -> Ready:
        """To be called once, before all else. Raises what `Plan.start` and `Order.settled` do."""
        self._work = order.settled().start(standing=True)
        return Ready(self._work.window, self._work.portion)

    def answer(self, lines: Sequence[Line]) -> Iterator[Outcome]:
        """The outcomes as they come, without the lines' values: whoever asks has them."""
        for outcome in self._work.run(iter(lines)):
            if outcome is not None:
                yield replace(outcome, line=replace(outcome.line, values={}))
