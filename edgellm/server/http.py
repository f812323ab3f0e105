"""Requests read, and answers written: JSON, and server-sent events."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from edgellm.errors import EdgellmError
from edgellm.openai.options import invalid
from edgellm.server.failures import Refusal, refusal_of, too_large
from edgellm.server.pool import Loaded, ModelPool
from edgellm.server.settings import ServerSettings

B = TypeVar("B", bound=msgspec.Struct)
JSON = "application/json"
FINGERPRINT = "edgellm"  # of the system, in answers
log = logging.getLogger("edgellm.server")


@dataclass(frozen=True)
class Context:
    """What every handler is given."""

    pool: ModelPool
    settings: ServerSettings

    @property
    def limits(self) -> dict[str, Any]:
        """What every answer is limited to, as options."""
        return {} if self.settings.max_seconds is None else {"max_time": self.settings.max_seconds}

    def now(self) -> int:
        return int(time.time())


def identity(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


async def body_of(http: HttpRequest, kind: type[B], settings: ServerSettings) -> B:
    """A request's JSON. Raises Refusal or FieldError."""
    content_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON:
        raise Refusal(415, f"the content type is {content_type!r}, expected {JSON}")
    try:
        async with asyncio.timeout(settings.body_seconds):
            content = await _read(http, settings)
    except TimeoutError:
        raise Refusal(408, f"the request did not arrive within {settings.body_seconds:g} s") from None
    if settings.log_prompts:
        log.info("%s %s", http.scope["path"], content.decode(errors="replace"))
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the request is not valid JSON: {error}", code="invalid_json") from error


async def _read(http: HttpRequest, settings: ServerSettings) -> bytes:
    return b"".join([piece async for piece in pieces_of(http, settings)])


async def pieces_of(http: HttpRequest, settings: ServerSettings) -> AsyncGenerator[bytes]:
    """A request's body as it comes. Raises Refusal for one that is too large."""
    most, size = settings.largest(http.scope["path"]), 0
    async for piece in http.stream():
        size += len(piece)
        if size > most:
            raise too_large(most)
        yield piece


def answered(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type=JSON)


class Cancelled(Protocol):
    """An answer that somebody may not wait for any more."""

    def cancel(self) -> None: ...


class Chunks:
    """Chunks made of answers. Until their end, or until nobody takes them any more, the model stays loaded; then the
    answers are cancelled, also where not one chunk was taken."""

    def __init__(self, chunks: AsyncIterator[Any], answers: Sequence[Cancelled], loaded: Loaded) -> None:
        self._chunks, self._answers, self._loaded = chunks, answers, loaded
        self._open = True
        loaded.users += 1

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._chunks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loaded.users -= 1
            self._loaded.last_used = time.monotonic()
            for answer in self._answers:
                answer.cancel()

    def __del__(self) -> None:
        self.close()


def streamed(chunks: Chunks, *, named: bool = False) -> Response:
    """Server-sent events, as OpenAI writes them: each with the name of its type, or without names and [DONE] at the
    end. An error on the way is the last event."""

    async def events() -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                name = f"event: {chunk.type}\n".encode() if named else b""
                yield name + b"data: " + msgspec.json.encode(chunk) + b"\n\n"
            if not named:
                yield b"data: [DONE]\n\n"
        except EdgellmError as error:
            yield b"data: " + msgspec.json.encode(refusal_of(error).body()) + b"\n\n"
        finally:
            chunks.close()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
