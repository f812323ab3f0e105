"""Programs that speak to OpenAI, pointed at `edgellm serve`'s application: they get what the model says alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asking
import edgellm
from conftest_of_server import LONG, Server
from edgellm.server import ServerSettings, create_app
from environments import Unreachable, python_of
from fuzz.http_packages import TEMPLATE, write_vectors
from tiny_package import write_package

pytestmark = pytest.mark.parity

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
END = "Sun in Rome."


class Directed:
    """What the tiny model says where there are tools: first a call, and behind its result an end."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message.get("more_body", False)
        body = json.loads(content)
        if body.get("tools"):
            body["choices"] = [END if body["messages"][-1]["role"] == "tool" else CALL]
        content = json.dumps(body).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(content)).encode())]}
        messages = iter([{"type": "http.request", "body": content}])

        async def once() -> Any:
            return next(messages, None) or await receive()

        await self._app(scope, once, send)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packages")
    tiny = write_package(root / "tiny", replace(LONG, chat_template=TEMPLATE))
    return {"tiny": tiny, "vectors": write_vectors(root / "vectors")}


@pytest.fixture(scope="module")
def url(packages: dict[str, Path]) -> Iterator[str]:
    with Server.of(Directed(create_app(packages, ServerSettings(threads=1)))) as server:
        yield f"{server.url}/v1"


@pytest.fixture(scope="module")
def python() -> str:
    try:
        return python_of("clients")
    except Unreachable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("client", asking.CLIENTS)
def test_a_client_gets_what_the_model_says(
    client: str, url: str, python: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    command = [python, str(Path(asking.__file__)), client, url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])  # some have more to say
    model = edgellm.load(packages["tiny"], threads=1)
    assert isinstance(model, edgellm.Model)
    expected = model.chat(asking.QUESTION, max_new_tokens=9, do_sample=False).text
    assert found.pop("text") == found.pop("streamed") == expected
    assert found.pop("responses", expected) == expected
    person = model.chat(asking.QUESTION, max_new_tokens=60, do_sample=False, json_schema=asking.PERSON).text
    assert found.pop("person") == json.loads(person)
    assert found.pop("agent") == ["sun in Rome", END]
    assert found.pop("refused")
    encoder = edgellm.load(packages["vectors"], threads=1)
    assert isinstance(encoder, edgellm.EncoderModel)
    vectors = encoder.embed(asking.TEXTS)
    np.testing.assert_allclose(found.pop("vectors", vectors), vectors, atol=1e-7)
    assert found == {}
