"""The HTTP server under the application: uvicorn, with an end for connections that say or take nothing, and an end of
its own."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

GRACE_S = 30.0  # seconds that answers may take after SIGTERM
LAST_WORDS_S = 5  # that it takes to send those that ended there
MOST_HEADER_BYTES = 1 << 16


class Connection(H11Protocol):
    """Closed after `PATIENCE_S` seconds in which it owed something: a whole header, whatever it sent of one, or the
    taking of what was sent to it. The time of a body is the application's, that of an answer has no limit here.

    Beyond `MOST` connections, the one that has owed a request for longest makes room.
    """

    PATIENCE_S = 15.0
    MOST = 512  # a process has 1,024 files, where nobody says otherwise

    _look: asyncio.TimerHandle | None = None
    _since = 0.0  # loop time from which on it owes a request

    @property
    def owes_a_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(unsent=0)
        if len(self.connections) > self.MOST:
            self._have_another_make_room()

    def _have_another_make_room(self) -> None:
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        there = [each for each in others if not each.transport.is_closing()]
        idle = [each for each in there if each.owes_a_request]
        if len(there) >= self.MOST and idle:
            min(idle, key=lambda each: each._since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_looking()

    def on_response_complete(self) -> None:
        self._wait(unsent=0)
        super().on_response_complete()

    def _wait(self, *, unsent: int) -> None:
        """Look again when patience has ended. `unsent`: bytes that the client has not taken yet."""
        self._stop_looking()
        if self.owes_a_request:
            self._since = self.loop.time()
        self._look = self.loop.call_later(self.PATIENCE_S, self._end_if_nothing_came, unsent)

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def _end_if_nothing_came(self, unsent_before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if (unsent == unsent_before) if unsent else self.owes_a_request:
            self.transport.abort()
        else:
            self._wait(unsent=unsent)


class Server(uvicorn.Server):
    """SIGTERM is how a server ends: with 0, when what ran has finished. uvicorn raises the signal once more.

    `end_answers`: called after `grace_s` seconds in which they have not ended by themselves.
    """

    def __init__(self, config: uvicorn.Config, end_answers: Callable[[], None], grace_s: float) -> None:
        super().__init__(config)
        self._end_answers, self._grace_s = end_answers, grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end = asyncio.get_running_loop().call_later(self._grace_s, self._end_answers)
        await super().shutdown(sockets)
        end.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def server_of(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    end_answers: Callable[[], None] = lambda: None,
    grace_s: float = GRACE_S,
    **given: Any,
) -> Server:
    """`end_answers` and `grace_s` as `Server` has them; `given`: more of uvicorn's settings."""
    settings: dict[str, Any] = {
        "log_level": "info", "access_log": False, "server_header": False,
        "timeout_graceful_shutdown": grace_s + LAST_WORDS_S,
        "timeout_keep_alive": Connection.PATIENCE_S, "h11_max_incomplete_event_size": MOST_HEADER_BYTES,
        "http": Connection, "ws": "none",
    }  # fmt: skip
    return Server(uvicorn.Config(app, host=host, port=port, **{**settings, **given}), end_answers, grace_s)
