"""How many workers a cluster has room for, and what each is made of."""

from __future__ import annotations

from dataclasses import replace

from edgellm.bulk.plan import Plan, identity_of
from edgellm.errors import OptionError
from edgellm.loading import read_package
from edgellm.ray.library import ray_library
from edgellm.ray.parcel import packed
from edgellm.ray.worker import Order


def check_counts(**counts: int | None) -> None:
    """Raises OptionError for what is no count."""
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < 1):
            raise OptionError(f"{name} is {count!r}, expected a whole number from 1")


def threads_of(threads: int | None) -> int:
    """CPUs of a worker: None are those of the smallest node that has any. Raises OptionError where no node has them."""
    cpus = _cpus()
    if threads is not None and cpus and threads > max(cpus):
        raise OptionError(f"threads is {threads}, and the largest node of the cluster has {max(cpus)} CPUs")
    return threads or min(cpus, default=1)


def size_of(threads: int) -> int:
    """How many workers the cluster has room for now, at least one."""
    return max(1, sum(count // threads for count in _cpus()))


def order_of(plan: Plan, threads: int, *, shared: bool) -> Order:
    """Raises OptionError for a package that workers cannot have, and what reading it does."""
    path, manifest = read_package(plan.package)
    if plan.device == "cuda" or (plan.device == "auto" and manifest.target == "cuda"):
        raise OptionError(f"{path} would run on CUDA, and workers on Ray have CPUs alone; use a package for the CPU")
    identity = identity_of(path, manifest)
    plan = replace(plan, package=plan.package.resolve())  # workers have other working directories
    return Order(plan, None if shared else packed(path, manifest, identity), identity, threads)


def _cpus() -> list[int]:
    """Of each node that has any."""
    counts = [int(node["Resources"].get("CPU", 0)) for node in ray_library().nodes() if node["Alive"]]
    return [count for count in counts if count]
