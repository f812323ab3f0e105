"""How fast this machine reads memory: the limit of decoding, which reads every weight for every token."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.system.cpu import last_level_cache_bytes
from edgellm.system.disturbance import disturbances
from edgellm.system.memory import available_memory_bytes
from edgellm.system.sample import take_sample

CACHES = 8  # times the last-level cache: then at most an eighth of a pass can come from it
SMALLEST = 256 * 2**20  # bytes
UNKNOWN_CACHE = 64 * 2**20  # bytes, where the system does not say
PASSES = 8


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second of the fastest pass of `threads` threads over `buffer_bytes` of memory. `disturbed` says why it
    should not be trusted, as in `Conditions`."""

    threads: int
    bytes_per_s: float
    buffer_bytes: int
    cache_bytes: int | None
    disturbed: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        cache = "a last-level cache of unknown size"
        if self.cache_bytes is not None:
            cache = f"{self.cache_bytes / 2**20:.0f} MiB of last-level cache"
        return f"fastest of {PASSES} passes of numpy's maximum over {self.buffer_bytes / 2**20:.0f} MiB; {cache}"


def read_bandwidth(threads: int, root: Path = Path("/")) -> Bandwidth | str:
    """Measure for about a second. A string says why there is no figure."""
    cache = last_level_cache_bytes(root)
    size = buffer_bytes(cache, available_memory_bytes(root))
    if size is None:
        return "too little free memory for a buffer that the caches cannot hold"
    buffer = np.ones(size // 4, np.int32)  # ones: pages of zeros might all be one and the same
    parts = np.array_split(buffer, threads)
    before = take_sample(root)
    with ThreadPoolExecutor(threads) as pool:
        fastest = min(_one_pass(pool, parts) for _ in range(PASSES))
        disturbed = disturbances((before, take_sample(root)), threads)
    return Bandwidth(threads, buffer.nbytes / fastest, buffer.nbytes, cache, disturbed)


def buffer_bytes(cache: int | None, available: int | None) -> int | None:
    """How many bytes to read: at most a quarter of the free memory, None where that is less than twice the cache."""
    cache = UNKNOWN_CACHE if cache is None else cache
    wanted = max(SMALLEST, CACHES * cache)
    possible = wanted if available is None else min(wanted, available // 4)
    return possible if possible >= 2 * cache else None


def _one_pass(pool: ThreadPoolExecutor, parts: list[npt.NDArray[np.int32]]) -> float:
    """The seconds of one pass. numpy computes without the interpreter's lock."""
    start = time.perf_counter()
    for _ in pool.map(np.max, parts):
        pass
    return time.perf_counter() - start
