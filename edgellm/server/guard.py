"""Who may ask: the host that a request names, the page that it comes from, its key, and its size.

A page of the web can have a browser send requests to a server on the same machine, under its own name (Origin) or, with
a name that resolves to 127.0.0.1, under a host's of its own (Host). Both are checked before anything is read.
"""

from __future__ import annotations

import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.server.failures import Refusal, too_large
from edgellm.server.settings import ServerSettings

OPEN = ("/health", "/")  # need no key: they tell nothing
METHODS = "GET, POST, OPTIONS"
ASKED_FOR = "Authorization, Content-Type"
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^][@/?#:\\\s]+)(:[0-9]+)?")
MOST_DIGITS = 20  # of a length


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin is not None and self._is_named(origin)

        async def with_origin(message: Message) -> None:
            if message["type"] == "http.response.start" and allowed and origin is not None:
                allow = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After"}
                MutableHeaders(scope=message).update({**allow, "Vary": "Origin"})
            await send(message)

        try:
            self._check(scope, headers)
        except Refusal as refusal:
            response: Response = JSONResponse(refusal.body(), refusal.status, refusal.headers)
            await response(scope, receive, with_origin)
            return
        if scope["method"] == "OPTIONS" and allowed:
            asked = headers.get("access-control-request-headers", ASKED_FOR)
            given = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Allow-Headers": asked}
            await Response(status_code=204, headers=given)(scope, receive, with_origin)
            return
        await self._app(scope, receive, with_origin)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises Refusal."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if len(headers.getlist("host")) > 1 or (self._settings.hosts and _name(host) not in self._settings.hosts):
            raise Refusal(
                403, f"the host {host!r} is not one that this server answers to; name it with --host or --allow-host"
            )
        several = len(headers.getlist("origin")) > 1
        if origin is not None and (several or not (self._is_named(origin) or _is_own(origin, host))):
            raise Refusal(403, f"the origin {origin!r} may not use this server; name it with --cors-origin")
        self._check_size(headers, self._settings.largest(scope["path"]))
        if self._settings.api_keys and scope["path"] not in OPEN and scope["method"] != "OPTIONS":
            self._check_key(headers.get("authorization", ""))

    def _check_size(self, headers: Headers, most: int) -> None:
        size = headers.get("content-length")
        if size is None:
            return
        if "transfer-encoding" in headers:  # another server before this one may see the body end elsewhere
            raise Refusal(
                400,
                "the request has Content-Length and Transfer-Encoding, expected one",
                headers={"Connection": "close"},
            )
        if not size.isdecimal() or len(size) > MOST_DIGITS or int(size) > most:
            raise too_large(most)

    def _check_key(self, authorization: str) -> None:
        kind, _, key = authorization.partition(" ")
        given = key.strip().encode()
        if kind.lower() != "bearer" or not any(
            hmac.compare_digest(given, known.encode()) for known in self._settings.api_keys
        ):
            raise Refusal(401, "the API key is missing or wrong", code="invalid_api_key")

    def _is_named(self, origin: str) -> bool:
        return "*" in self._settings.origins or origin in self._settings.origins


def _name(host: str) -> str:
    """A host without its port and brackets, in lower case; "" for what is none."""
    found = HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else ""


def _is_own(origin: str, host: str) -> bool:
    """Whether a page of this server asks."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
