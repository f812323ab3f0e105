"""`edgellm.bulk.run_batch` with the lines answered by a cluster."""

from __future__ import annotations

import contextlib
from os import PathLike
from typing import Any

from edgellm.bulk import Summary, runner
from edgellm.bulk.plan import Plan, Work
from edgellm.ray.fleet import Fleet
from edgellm.ray.library import LOCAL, connected, ray_library
from edgellm.ray.orders import check_counts, order_of, size_of, threads_of


def run_batch(
    package: str | PathLike[str],
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    shared: bool = False,
    **arguments: Any,
) -> Summary:
    """`edgellm.bulk.run_batch`, by workers on a Ray cluster: the same output and the same journal, which this process
    writes. A worker or a node that dies costs time, and no line; where this process dies, it goes on where it was.

    address: see `connected`. workers: models that are loaded; None: as many as there are CPUs for. threads: CPUs of
    each; None: those of the smallest node. shared: every node can read the package at its path; otherwise it is sent to
    each once. `arguments`: the others of `edgellm.bulk.run_batch`.

    Raises what that does, BatchError and MissingDependencyError.
    """
    check_counts(workers=workers, threads=threads)
    ray_library()
    with contextlib.ExitStack() as stack:

        def start(plan: Plan, todo: int) -> Work:
            stack.enter_context(connected(address))
            each = threads_of(threads)
            order = order_of(plan, each, shared=shared or address == LOCAL)
            return Fleet(order, min(workers or size_of(each), todo), todo)

        return runner.run_batch(package, source, output, threads=threads, start=start, **arguments)
