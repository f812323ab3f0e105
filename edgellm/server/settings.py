"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.package.manifest import KVCacheChoice

LOOPBACK = ("localhost", "127.0.0.1", "::1")
RECORDINGS = "/v1/audio/"  # what addresses that take them begin with


@dataclass(frozen=True)
class ServerSettings:
    """`api_keys`: one of them must be sent, where there are any. `hosts`: names that requests may be addressed to;
    empty: any. `origins`: web pages that may ask, beside those that the server gives itself; "*" is any.

    `max_body_bytes`: of a request. `max_upload_bytes`: of one with a recording, which may be `max_recording_seconds`
    long. `max_waiting`: requests that wait for each model; another one is answered with 429.
    `max_rows`: sequences of each model that are decoded together. `memory_bytes`: for all models that are loaded; None:
    no limit. `cache_bytes`: for each model's keys and values; None: a quarter of the memory that is available.
    `max_seconds`: of an answer, which then ends as if its tokens were used up. `body_seconds`: until a request must
    have arrived. `kv_cache`: of models that generate, as in `edgellm.load`. `log_prompts`: write requests' texts to
    the log.
    """

    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 << 20
    max_upload_bytes: int = 25 << 20
    max_recording_seconds: float = 3600.0
    max_waiting: int = 256
    max_rows: int = 32
    memory_bytes: int | None = None
    cache_bytes: int | None = None
    max_seconds: float | None = None
    body_seconds: float = 30.0
    threads: int | None = None
    kv_cache: KVCacheChoice = "auto"
    log_prompts: bool = False

    def largest(self, path: str) -> int:
        """Bytes of a request to an address."""
        return self.max_upload_bytes if path.startswith(RECORDINGS) else self.max_body_bytes
