"""The server of `edgellm serve` in Ray Serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from edgellm.errors import MissingDependencyError
from edgellm.loading import read_package
from edgellm.ray.library import ray_library
from edgellm.ray.orders import check_counts
from edgellm.ray.worker import cache_bytes
from edgellm.server.settings import ServerSettings


def serve_app(
    packages: str | PathLike[str] | Mapping[str, str | PathLike[str]],
    settings: ServerSettings | None = None,
    *,
    replicas: int | tuple[int, int] = 1,
) -> Any:
    """An application for `ray.serve.run`: OpenAI's addresses, as `edgellm serve` has them, with replicas on the nodes
    of a cluster.

    packages: a package, which has its directory's name, or several by name; every node must be able to read them there.
    Each replica loads the first at its start. settings: `threads`, 1 where there is none, are the CPUs of a replica;
    `hosts` must have the names that clients use for Serve's proxy. replicas: or (least, most), by what is asked.

    Raises PackageError, OptionError or MissingDependencyError.
    """
    serve = ray_library("ray.serve")
    least, most = replicas if isinstance(replicas, tuple) else (replicas, replicas)
    check_counts(replicas=least)
    check_counts(replicas=most)
    if isinstance(packages, Mapping):
        named = {name: Path(path).resolve() for name, path in packages.items()}
    else:
        named = {Path(packages).resolve().name: Path(packages).resolve()}
    for path in named.values():
        read_package(path)
    chosen = settings or ServerSettings()
    chosen = replace(chosen, threads=chosen.threads or 1)
    _application()

    def build() -> Any:
        """On a replica."""
        own = replace(chosen, cache_bytes=chosen.cache_bytes or cache_bytes(chosen.threads or 1))
        return _application()(named, own, preload=next(iter(named)))

    wanted: dict[str, Any] = {"num_replicas": least}
    if least != most:
        scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": chosen.max_rows}
        wanted = {"autoscaling_config": scaling}
    deployment = serve.deployment(
        serve.ingress(build)(),
        name="edgellm",
        max_ongoing_requests=chosen.max_rows + chosen.max_waiting,
        ray_actor_options={"num_cpus": chosen.threads},
        **wanted,
    )
    return deployment.bind()


def _application() -> Any:
    try:
        from edgellm.server.app import create_app
    except ImportError as error:
        raise MissingDependencyError(
            f"serve_app needs the extra `ray` ({error.name} is missing): pip install 'edgellm[cpu,ray]'"
        ) from error
    return create_app
