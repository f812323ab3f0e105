"""The installed Ray, with its usage statistics off, and the cluster that is asked for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from edgellm.errors import BatchError, MissingDependencyError, OptionError

LOCAL = "local"
CLIENT = "ray://"
CONNECT_S = 5.0


def ray_library(module: str = "ray") -> Any:
    """The module, or one of its parts. A cluster that this process starts reports nothing to Ray's makers: the variable
    is read when it starts. Raises MissingDependencyError."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"this needs {module}, which cannot be imported ({error}); run `pip install 'edgellm[cpu,ray]'`, here and "
            "on each machine of the cluster"
        ) from error


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The library, connected to the cluster at `address`: HOST:PORT of its head, "auto" for the one that this machine
    is in, "local" for one that is started here and ends with the block. None: the one that the caller is connected to,
    or else "local". Raises BatchError, OptionError or MissingDependencyError."""
    ray = ray_library()
    if ray.is_initialized():
        if address is not None:
            raise OptionError(
                f"this process is connected to a Ray cluster already, and {address!r} may be another; leave it out"
            )
        yield ray
        return
    _connect(ray, address or LOCAL)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if address.startswith(CLIENT):
        raise OptionError(
            f"{address} is the address of a Ray client, through which answers do not come one by one; run this on a "
            "machine of the cluster (`ray job submit` does), with auto as the address"
        )
    usual = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    own = {"include_dashboard": False} if address == LOCAL else {}
    try:
        _check_reachable(address)
        with _signals_kept():
            ray.init(**usual, **own)
    except Exception as error:  # Ray raises many kinds, this one among them
        raise BatchError(
            f"no Ray cluster can be used at {address} ({error}); start one with `ray start --head`, and run this on "
            "one of its machines, or give local"
        ) from error


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes. Raises OSError or ValueError."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, with an exit status of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
