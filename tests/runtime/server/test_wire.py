"""What comes over a socket, byte by byte, to the server that `edgellm serve` runs: no trick of paths, headers or
lengths gets past the guard, and what says nothing does not stay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse

from conftest_of_server import ENDLESS, LONG, PackageMaker, Server
from edgellm.server import ServerSettings
from edgellm.server.listening import Connection

BODY = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
TEXT = "/v1/completions"


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def exchanged(server: Server, content: bytes) -> bytes:
    """All that comes back until the server closes, or ends the connection before it has read all."""
    found = bytearray()
    with connected(server) as opened, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        opened.sendall(content)
        while piece := opened.recv(1 << 16):
            found += piece
    return bytes(found)


def request(line: str, *headers: str, body: bytes = b"", host: str = "Host: localhost") -> bytes:
    lines = [line, *([host] if host else []), "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(*headers: str, body: bytes = BODY, **given: Any) -> bytes:
    lengths = () if any("ength" in header or "oding" in header for header in headers) else (length(body),)
    return request(f"POST {TEXT} HTTP/1.1", "Content-Type: application/json", *lengths, *headers, body=body, **given)


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def statuses(found: bytes) -> list[int]:
    return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]


# Paths


@pytest.mark.parametrize(
    "target",
    [
        "/../../etc/passwd", "/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "//etc/passwd", "/v1//models", "/%00", "/v1/models/%00", "/v1/models%ff", "/%0d%0aX-Injected:%20yes",
        "/v1/models/..%5c..%5cwindows", "/V1/MODELS", "/openapi.json/", "http://evil.example/v1/models",
        "http://localhost/v1/models", "evil.example:443", "*", "/v1/models/" + "a" * 60000,
    ],
)  # fmt: skip
def test_no_other_path_leads_anywhere(server: Server, target: str) -> None:
    found = exchanged(server, request(f"GET {target} HTTP/1.1"))
    (status,) = statuses(found)
    assert status in (307, 404)
    assert b"root:" not in found
    assert b"\r\nX-Injected" not in found
    if status == 404:
        assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("host", ["[::1", "a b", "a/../b", "a@b", "", "\xff", "x" * 60000])
def test_any_host_may_be_told_that_there_is_nothing(serve: Callable[..., Server], host: str) -> None:
    """Where a server answers to every name."""
    found = exchanged(serve(hosts=()), request("GET /nothing HTTP/1.1", host=f"Host: {host}"))
    assert statuses(found) in ([404], [400])


# Hosts and origins


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:1", 200), ("127.0.0.1:8080", 200), ("[::1]", 200), ("[::1]:80", 200),
        ("evil.example", 403), ("evil.example@localhost", 403), ("localhost@evil.example", 403),
        ("localhost.evil.example", 403), ("localhost.", 403), ("localhost/evil.example", 403), ("localhost#x", 403),
        ("localhost:evil", 403), ("localhost:1:2", 403), ("[localhost]", 403), ("::1", 403), ("[::1", 403),
        ("127.1", 403), ("2130706433", 403), ("0x7f000001", 403), ("127.0.0.1.nip.io", 403), ("local\xadhost", 403),
        ("xn--localhost-", 403), ("localhost, evil.example", 403), ("", 403),
    ],
)  # fmt: skip
def test_hosts(server: Server, host: str, status: int) -> None:
    found = statuses(exchanged(server, post(host=f"Host: {host}")))
    assert found == [status] or (status == 403 and found == [400]), "the parser's own refusal is one, too"


@pytest.mark.parametrize(
    "headers",
    [
        ["Host: evil.example"], ["Origin: null"], ["Origin: http://evil.example"], ["Origin: "],
        ["Origin: http://localhost.evil.example"], ["Origin: http://localhost@evil.example"],
        ["Origin: https://localhost:1"], ["Origin: file://"], ["Origin: moz-extension://localhost"],
        ["Origin: http://localhost", "Origin: http://evil.example"],
        ["Origin: http://evil.example", "Referer: http://localhost/"],
        ["Origin: http://evil.example", "X-Forwarded-Host: localhost", "X-Forwarded-For: 127.0.0.1"],
        ["Origin: http://evil.example", "X-Forwarded-Proto: https", "Forwarded: host=localhost;for=127.0.0.1"],
        ["Origin: http://evil.example", "X-HTTP-Method-Override: GET", "X-Original-URL: /health"],
    ],
)  # fmt: skip
def test_a_hostile_page_cannot_ask(server: Server, headers: list[str]) -> None:
    found = exchanged(server, post(*headers))
    assert statuses(found) in ([403], [400])
    assert b"access-control" not in found.lower()


def test_headers_of_proxies_do_not_change_who_asks(server: Server) -> None:
    forged = ["X-Forwarded-Host: localhost", "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1"]
    assert statuses(exchanged(server, post(*forged, host="Host: evil.example"))) == [403]
    forged = [header.replace("localhost", "evil.example") for header in forged]
    assert statuses(exchanged(server, post(*forged))) == [200]


def test_a_key_is_asked_for_at_every_way_of_writing_an_address(serve: Callable[..., Server]) -> None:
    server = serve(api_keys=("secret",))
    for target in (
        "/v1/models", "/v1/models/tiny", "/v1/./models", "/%76%31/models", "//v1/models", "/metrics", "/openapi.json",
        "/health/../v1/models", "/health%2f..%2fv1%2fmodels", "http://localhost/v1/models", "/?/v1/models/",
    ):  # fmt: skip
        found = exchanged(server, request(f"GET {target} HTTP/1.1"))
        assert statuses(found) == [200 if target.startswith("/?") else 401]
        assert b"tiny" not in found
    for method in ("HEAD", "DELETE", "TRACE", "CONNECT", "OPTIONS"):
        (status,) = statuses(exchanged(server, request(f"{method} /v1/models HTTP/1.1")))
        assert status in (401, 405)


# Lengths and framing


CHUNKED = "Transfer-Encoding: chunked"
SECOND = request("GET /health HTTP/1.1")


@pytest.mark.parametrize(
    "content",
    [
        post("Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + SECOND),
        post(CHUNKED, "Content-Length: 900", body=b"0\r\n\r\n" + SECOND),
        post(CHUNKED, f"Content-Length: {len(BODY)}", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
        post("Content-Length: 5", "Content-Length: 6", body=b"12345" + SECOND),
        post("Content-Length: 5, 5, 6", body=b"12345" + SECOND),
        post("Content-Length: +5", body=b"12345" + SECOND),
        post("Content-Length: 0x5", body=b"12345" + SECOND),
        post("Content-Length: -1", body=SECOND),
        post("Content-Length: 9" + "9" * 5000, body=SECOND),
        post("Content-Length : 5", body=b"12345" + SECOND),
        post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SECOND),
        post("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SECOND),
        post("Transfer-Encoding: identity", body=b"0\r\n\r\n" + SECOND),
        post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SECOND),
        post("Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + SECOND),
        post("Transfer-Encoding\t: chunked", body=b"0\r\n\r\n" + SECOND),
        post(CHUNKED, body=b"-1\r\n\r\n" + SECOND),
        post(CHUNKED, body=b"zz\r\n\r\n" + SECOND),
        post(CHUNKED, body=b"f" * 30 + b"\r\n\r\n" + SECOND),
        post(CHUNKED, body=b"5;a\x00b\r\n12345\r\n0\r\n\r\n" + SECOND),
        post(CHUNKED, body=b"2\r\n1234\r\n0\r\n\r\n" + SECOND),
        post("X-Bare: a\nTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SECOND),
        post("X-Return: a\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SECOND),
        post("X-Zero: a\x00b"),
        b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"PRI * HTTP/2.0\r\nConnection: close\r\n\r\nSM\r\n\r\n",
        b"\x00" * 1000,
    ],
)  # fmt: skip
def test_what_ends_in_two_ways_is_one_request_and_refused(server: Server, content: bytes) -> None:
    """Another server in front may have seen the end elsewhere: what is behind it is never a request of its own."""
    found = statuses(exchanged(server, content))
    assert len(found) == 1
    assert 400 <= found[0] < 500


@pytest.mark.parametrize("headers", [["X-Many: " + "a" * 1000] * 1000, ["X-Long: " + "a" * (1 << 20)]])
def test_large_headers(server: Server, headers: list[str]) -> None:
    found = statuses(exchanged(server, request("GET /health HTTP/1.1", *headers)))
    assert found in ([400], []), "or a connection that is ended"


def test_requests_behind_one_another(server: Server) -> None:
    first = post().replace(b"Connection: close\r\n", b"")
    assert statuses(exchanged(server, first * 3 + SECOND)) == [200] * 4


def test_a_body_in_chunks(server: Server) -> None:
    pieces = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in BODY)
    assert statuses(exchanged(server, post(CHUNKED, body=pieces + b"0\r\n\r\n"))) == [200]
    cut = exchanged(server, post(CHUNKED, body=b"9\r\n" + BODY[:9] + b"\r\n0\r\n\r\n"))
    assert statuses(cut) == [400]


# Time


@pytest.fixture
def hasty(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(Connection, "PATIENCE_S", 0.5)
    monkeypatch.setattr(Connection, "MOST", 8)
    return serve(body_seconds=0.6)


def seconds_until_closed(opened: socket.socket) -> float:
    start = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while opened.recv(1 << 16):
            pass
    return time.monotonic() - start


def test_connections_that_owe_a_request_are_closed(hasty: Server) -> None:
    whole = post().replace(b"Connection: close\r\n", b"")
    refused = post("Content-Length: 900", host="Host: evil.example", body=b"{").replace(b"Connection: close\r\n", b"")
    for first in (b"", b"GET /hea", whole, whole + b"GET /hea", refused):
        with connected(hasty) as opened:
            opened.sendall(first)
            assert 0.3 < seconds_until_closed(opened) < 10


def drip(opened: socket.socket, content: bytes) -> None:
    for byte in content:
        opened.sendall(bytes([byte]))
        time.sleep(0.02)


@pytest.mark.parametrize("first", [b"", b"answered"])
def test_a_header_byte_by_byte_is_not_waited_for(hasty: Server, first: bytes) -> None:
    with connected(hasty) as opened:
        if first:
            opened.sendall(post().replace(b"Connection: close\r\n", b""))
            assert opened.recv(1 << 16)
        start = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe|aborted"):
            drip(opened, request("GET /health HTTP/1.1", *["X-Slow: 1"] * 100))
        assert time.monotonic() - start < 10


def test_an_answer_may_take_longer(hasty: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "PATIENCE_S", 0.05)
    body = json.dumps({"prompt": "a", "max_tokens": 1500, "temperature": 0, "logit_bias": {"2": -100}}).encode()
    start = time.monotonic()
    found = exchanged(hasty, post(body=body))
    assert statuses(found) == [200]
    assert json.loads(found.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] == 1500
    assert time.monotonic() - start > 0.1, "or this test says nothing"


def test_connections_that_say_nothing_make_room(hasty: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "PATIENCE_S", 60.0)
    idle = [connected(hasty) for _ in range(20)]
    try:
        assert statuses(exchanged(hasty, post())) == [200]
        assert seconds_until_closed(idle[0]) < 10
        assert len(hasty.connections) <= 9
    finally:
        for each in idle:
            each.close()


SIZE = 16 << 20  # more than what lies between the two


@contextlib.contextmanager
def answering(response: Callable[[], Response]) -> Iterator[tuple[Server, socket.socket]]:
    """A server that sends this and nothing else, and a client that has asked it and can hold little."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await response()(scope, receive, send)

    with Server.of(app) as server, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(SECOND)
        while not server.connections:
            time.sleep(0.01)
        yield server, slow


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"a" * 1000
        await asyncio.sleep(0)


@pytest.mark.parametrize("response", [lambda: Response(b"a" * SIZE), lambda: StreamingResponse(endless())])
def test_a_client_that_takes_nothing_is_let_go(
    response: Callable[[], Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "PATIENCE_S", 0.3)
    with answering(response) as (server, _):
        deadline = time.monotonic() + 10
        while server.connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_client_that_is_slow_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "PATIENCE_S", 0.3)
    with answering(lambda: Response(b"a" * SIZE)) as (_, slow):
        start, size = time.monotonic(), 0
        while piece := slow.recv(1 << 16):
            size += len(piece)
            time.sleep(0.004)
        assert size > SIZE
        assert time.monotonic() - start > 0.6


def test_answers_that_are_not_done_in_time_end_where_they_are(make_package: PackageMaker) -> None:
    """Streams and bodies are whole, and say that they were cut; what had not begun is refused."""
    body = {"prompt": "a", "max_tokens": ENDLESS, "temperature": 0, "logit_bias": {"2": -100}}
    listening: dict[str, Any] = {"grace_s": 0.1, "log_level": "critical"}
    with Server({"tiny": make_package(LONG)}, ServerSettings(threads=1, max_rows=2), **listening) as server:
        server.ask(TEXT, prompt="a", max_tokens=1)
        with (
            ThreadPoolExecutor(2) as threads,
            server.http.stream("POST", TEXT, json={**body, "stream": True}) as stream,
        ):
            lines = stream.iter_lines()
            next(lines)
            whole = threads.submit(server.post, TEXT, body)
            await_stats(server, running=2)
            late = threads.submit(server.post, TEXT, body)
            await_stats(server, running=2, waiting=1)
            server.end()
            *_, last, done = [line.removeprefix("data: ") for line in lines if line]
            assert done == "[DONE]"
            assert json.loads(last)["choices"][0]["finish_reason"] == "length"
            assert whole.result().status_code == 200
            assert 0 < whole.result().json()["usage"]["completion_tokens"] < ENDLESS
            assert whole.result().json()["choices"][0]["finish_reason"] == "length"
            assert late.result().status_code == 503
            assert late.result().json()["error"]["code"] == "shutting_down"


def await_stats(server: Server, **wanted: int) -> None:
    while any(server.stats()[f"requests_{name}"] != number for name, number in wanted.items()):
        pass
