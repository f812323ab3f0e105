"""What the server refuses, and how."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest_of_server import Server

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
BODY = {"prompt": "a", "max_tokens": 1}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "said"),
    [
        (CHAT, {"messages": []}, 400, "messages", "Expected `array` of length >= 1"),
        (CHAT, {"messages": [{"content": "x"}]}, 400, "messages[0]", "missing required field `role`"),
        (CHAT, {"messages": [{"role": "user"}]}, 400, None, "neither 'content' nor 'tool_calls'"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content", "got `int`"),
        (CHAT, {"messages": "hello"}, 400, "messages", "Expected `array`, got `str`"),
        (TEXT, {"prompt": "a", "temprature": 1}, 400, None, "unknown field `temprature`"),
        (TEXT, {"prompt": "a", "temperature": -1}, 400, "temperature", "`float` >= 0"),
        (TEXT, {"prompt": "a", "n": 129}, 400, "n", "<= 128"),
        (TEXT, {"prompt": "a", "n": 40}, 400, None, "at most the engine's 32 rows"),
        (TEXT, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens", ">= 1"),
        (TEXT, {"prompt": "a" * 40_000}, 400, "messages", "no room for a new token"),
        (TEXT, {"prompt": [[1, 2], ["x"]]}, 400, "prompt[1][0]", "got `str`"),
        (TEXT, {"prompt": [1, 99999]}, 400, None, "99999"),
        (TEXT, {"prompt": ["a"] * 2049}, 400, "prompt", "has 2049 texts, expected at most 2048"),
        (TEXT, {"prompt": "a", "stop": "x" * 257}, 400, "stop", "<= 256"),
        (TEXT, {"prompt": "a", "suffix": "b"}, 400, "suffix", "not supported"),
        (TEXT, {"prompt": "a", "best_of": 4}, 400, "best_of", "expected 1"),
        (TEXT, {"prompt": "a", "logit_bias": {"x": 1}}, 400, None, "a mapping of token ids"),
        (TEXT, {"prompt": "a", "model": "none"}, 404, "model", "does not exist here; there is tiny"),
        ("/v1/embeddings", {"input": "a"}, 400, "model", "makes no vectors: it is for text-generation"),
        ("/tokenize", {}, 400, "prompt", "either prompt or messages"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]", ">= 0"),
        ("/v1/nothing", {}, 404, None, "there is nothing at /v1/nothing"),
    ],
)
def test_errors_have_openais_shape(server: Server, path: str, body: Any, status: int, param: str, said: str) -> None:
    response = server.post(path, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert said in error["message"]
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


def test_what_is_no_json(server: Server) -> None:
    def status(content: bytes, kind: str = "application/json") -> int:
        return server.http.post(TEXT, content=content, headers={"content-type": kind}).status_code

    assert status(b'{"prompt": ') == 400
    assert status(b"\xff\xfe") == 400
    assert status(b"[" * 100_000) == 400
    assert status(b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}") == 400
    assert status(json.dumps(BODY).encode(), "text/plain") == 415, "what a web page can send without asking"
    assert status(json.dumps(BODY).encode(), "application/json; charset=utf-8") == 200
    assert server.http.get(TEXT).status_code == 405


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["prompt", "messages", "role", "content", "n", "stop", "temperature", "tools", "logprobs"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([TEXT, CHAT, "/tokenize", "/detokenize", "/v1/embeddings", "/rerank"]),
)
def test_any_body_is_answered_or_refused(server: Server, body: Any, path: str) -> None:
    if isinstance(body, dict):
        body = {"max_tokens": 1, **body} if path in (TEXT, CHAT) else body
    response = server.http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        assert response.json()["error"]["message"]


def test_hosts_and_origins(server: Server) -> None:
    def status(**headers: str) -> int:
        return server.post(
            TEXT, BODY, headers={name.replace("_", "-"): value for name, value in headers.items()}
        ).status_code

    port = server.url.rpartition(":")[2]
    assert status() == 200
    assert status(host=f"localhost:{port}") == status(host=f"[::1]:{port}") == status(host="LOCALHOST") == 200
    assert status(host="evil.example") == status(host=f"127.0.0.1.evil.example:{port}") == status(host="") == 403
    assert status(origin="http://evil.example") == status(origin="null") == status(origin="file://") == 403
    assert status(origin=f"http://127.0.0.1:{port}") == 200, "its own page"
    assert status(host="localhost", origin=f"http://127.0.0.1:{port}") == 403
    response = server.http.options(TEXT, headers={"origin": "http://evil.example"})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_pages_that_are_named(serve: Callable[..., Server]) -> None:
    server = serve(origins=("https://app.example",), hosts=())
    headers = {"origin": "https://app.example"}
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-stainless-os"}
    asked = server.http.options(TEXT, headers={**headers, **wanted})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "https://app.example")
    assert asked.headers["access-control-allow-headers"] == "content-type,x-stainless-os", (
        "as OpenAI's client sends them"
    )
    answered = server.post(TEXT, BODY, headers={**headers, "host": "any.example"})
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert server.post(TEXT, BODY, headers={"origin": "https://other.example"}).status_code == 403


def test_keys(serve: Callable[..., Server]) -> None:
    server = serve(api_keys=("secret", "other"))
    for given_key, status in (
        ("Bearer secret", 200),
        ("bearer other", 200),
        ("Bearer wrong", 401),
        ("secret", 401),
        ("", 401),
    ):
        response = server.post(TEXT, BODY, headers={"authorization": given_key})
        assert response.status_code == status
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert server.http.get("/health").status_code == 200
    assert server.http.get("/v1/models").status_code == server.http.get("/metrics").status_code == 401


def test_sizes(serve: Callable[..., Server]) -> None:
    server = serve(max_body_bytes=1000)
    assert server.post(TEXT, {"prompt": "a" * 2000}).status_code == 413

    def pieces() -> Any:
        yield b'{"prompt": "'
        for _ in range(100):
            yield b"a" * 100

    response = server.http.post(TEXT, content=pieces(), headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert server.post(TEXT, BODY).status_code == 200


def test_a_body_that_does_not_come(serve: Callable[..., Server]) -> None:
    server = serve(body_seconds=0.3)
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        lines = f"POST {TEXT} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", "Content-Length: 99"
        slow.sendall("\r\n".join([*lines, "", "{"]).encode())
        assert b"408" in slow.recv(1000)


def test_nothing_of_a_request_is_logged_unless_asked(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="edgellm.server")  # which other tests silence
    serve().post(TEXT, {"prompt": "a secret", "max_tokens": 1})
    serve().post(TEXT, {"prompt": "a secret", "unknown": 1})
    assert "secret" not in caplog.text
    serve(log_prompts=True).post(TEXT, {"prompt": "no secret", "max_tokens": 1})
    assert "no secret" in caplog.text
