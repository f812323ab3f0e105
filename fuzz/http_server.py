"""The server in this process: the connections of `edgellm serve` over no socket, and what may come back over one."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from uvicorn.server import ServerState

import edgellm
from edgellm.server import ServerSettings, create_app
from edgellm.server.listening import Connection, server_of
from fuzz.http_packages import make_packages
from fuzz.http_text import request

SECONDS = 1.0  # of the processor's time, for an answer that may take `ANSWER_SECONDS`
ANSWER_SECONDS = 0.2
HANGS_AFTER = 30.0  # on the clock
REFUSALS = (400, 401, 403, 404, 405, 408, 413, 415, 429)
EMPTY = (100, 204, 304, 307)


class Wrong(BaseException):
    """An answer that must not be. Nothing catches it."""


@dataclass(frozen=True)
class Part:
    """One of the answers of a connection."""

    status: int
    headers: str
    body: bytes


class HttpServer:
    def __init__(self, packages: dict[str, Path]) -> None:
        settings = ServerSettings(
            threads=1,
            max_rows=4,
            max_waiting=16,
            max_seconds=ANSWER_SECONDS,
            body_seconds=HANGS_AFTER,
            cache_bytes=1 << 22,
        )
        self.app = create_app(packages, settings)
        self._config = server_of(self.app, "127.0.0.1", 0, log_level="critical").config
        self._config.load()
        self._loop = asyncio.new_event_loop()
        logging.getLogger("edgellm.server").setLevel(logging.CRITICAL)

    def exchange(self, content: bytes) -> bytes:
        """What a client gets that sends this, and nothing more. Raises Wrong where it waits."""
        return self._loop.run_until_complete(self._exchange(content))

    async def _exchange(self, content: bytes) -> bytes:
        state, transport = ServerState(), Wire()
        connection = Connection(self._config, state, {}, _loop=self._loop)
        connection.connection_made(transport)
        if content:  # none at all is the end
            connection.data_received(content)
        try:
            await asyncio.wait_for(_answered(connection, state), HANGS_AFTER)
        except TimeoutError:
            raise Wrong(f"nothing came within {HANGS_AFTER} s") from None
        finally:
            connection.connection_lost(None)
        return bytes(transport.written)


async def _answered(connection: Connection, state: ServerState) -> None:
    """Until all requests that were whole have their answers; the client leaves one that was not."""
    for _ in range(5):
        await asyncio.sleep(0)
    while state.tasks:
        if connection.cycle.more_body and not connection.cycle.response_complete:
            connection.connection_lost(None)
        await asyncio.wait(set(state.tasks))


class Wire(asyncio.Transport):
    """What a connection writes to."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 8080)})
        self.written = bytearray()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closed:
            self.written += data

    def close(self) -> None:
        self._closed = True

    abort = close

    def is_closing(self) -> bool:
        return self._closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


@cache
def packages() -> dict[str, Path]:
    return make_packages(Path(tempfile.mkdtemp(prefix="fuzz-packages-")))


@cache
def decoder() -> edgellm.Model:
    model = edgellm.load(packages()["tiny"], threads=1)
    assert isinstance(model, edgellm.Model)
    return model


@cache
def server() -> HttpServer:
    """With both models loaded."""
    made = HttpServer(packages())
    for path, name in (("/tokenize", "tiny"), ("/rerank", "vectors")):
        made.exchange(request(path, json.dumps({"model": name}).encode()))
    return made


def check_exchange(content: bytes) -> list[int]:
    """The statuses of what comes back. Raises Wrong for what must not: a server's error, an error of another shape,
    an answer that takes longer than a second."""
    opened, started = server(), time.process_time()
    answer = opened.exchange(content)
    seconds = time.process_time() - started
    found = list(parts(answer))
    for part in found:
        _check(part)
    if seconds > SECONDS * max(1, len(found)):
        raise Wrong(f"{seconds:.1f} s for {len(found)} answers")
    return [part.status for part in found]


def _check(part: Part) -> None:
    if part.status not in (200, *EMPTY, *REFUSALS) or b'"server_error"' in part.body:
        raise Wrong(f"status {part.status}: {part.body[:300]!r}")
    if "application/json" in part.headers and part.body:
        content = json.loads(part.body)
        if part.status in REFUSALS and not _is_error(content):
            raise Wrong(f"status {part.status} of another shape: {part.body[:300]!r}")


def _is_error(content: Any) -> bool:
    match content:
        case {"error": {"message": str(message), "type": str(), "param": str() | None, "code": str() | None}}:
            return bool(message)
    return False


def parts(answer: bytes) -> Iterator[Part]:
    """The answers one behind the other."""
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        if status is None:
            raise Wrong(f"no answer: {head[:100]!r}")
        headers = head.decode("latin-1").lower()
        length = re.search(r"^content-length: (\d+)", headers, re.MULTILINE)
        if not answer or answer.startswith(b"HTTP/1.1 "):  # of HEAD, or empty
            body = b""
        elif length is not None:
            body, answer = answer[: int(length[1])], answer[int(length[1]) :]
        elif "transfer-encoding: chunked" in headers:
            body, answer = _chunks(answer)
        else:
            body, answer = answer, b""
        yield Part(int(status[1]), headers, body)


def _chunks(answer: bytes) -> tuple[bytes, bytes]:
    """A body that came in chunks, and what is behind it."""
    body = b""
    while answer:
        size, _, answer = answer.partition(b"\r\n")
        body += answer[: int(size, 16)]
        answer = answer[int(size, 16) + 2 :]
        if size == b"0":
            break
    return body, answer
