from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import edgellm
from edgellm.server import ServerSettings, create_app
from edgellm.server.listening import server_of
from tiny_package import TinyConfig

PackageMaker = Callable[[TinyConfig], Path]
LONG = TinyConfig(context_length=1 << 15)
ENDLESS = 32000  # tokens of an answer, seconds on any machine


class Server:
    """A server in a thread, at a free port of this machine."""

    def __init__(self, packages: dict[str, Path], settings: ServerSettings, **listening: Any) -> None:
        app = create_app(packages, settings)
        self._listen_for(app, end_answers=app.state.end_answers, **listening)

    @classmethod
    def of(cls, app: Any) -> Server:
        """One of another application."""
        made = cls.__new__(cls)
        made._listen_for(app)
        return made

    def _listen_for(self, app: Any, **listening: Any) -> None:
        self._server = server_of(app, "127.0.0.1", 0, **{"log_level": "warning", **listening})
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.end()
        self._thread.join()

    def end(self) -> None:
        """As SIGTERM has it end."""
        self._server.should_exit = True

    @property
    def connections(self) -> list[Any]:
        return list(self._server.server_state.connections)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def ask(self, path: str, **body: Any) -> Any:
        """The answer's JSON."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def stats(self) -> dict[str, float]:
        """/metrics of the only model, without the common beginning of the names."""
        lines = self.http.get("/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("edgellm_") and "{model=" in line)
        return {name.partition("{")[0].removeprefix("edgellm_"): float(value) for name, value in pairs}


@pytest.fixture
def serve(make_package: PackageMaker) -> Iterator[Callable[..., Server]]:
    """A server of tiny packages; keywords are `ServerSettings`."""
    with contextlib.ExitStack() as stack:

        def start(*names: str, **settings: Any) -> Server:
            packages = {name: make_package(LONG) for name in names or ("tiny",)}
            return stack.enter_context(Server(packages, ServerSettings(threads=1, **settings)))

        yield start


@pytest.fixture(scope="module")
def server(make_package: PackageMaker) -> Iterator[Server]:
    with Server({"tiny": make_package(LONG)}, ServerSettings(threads=1)) as started:
        yield started


@pytest.fixture(scope="session")
def long_model(make_package: PackageMaker) -> edgellm.Model:
    model = edgellm.load(make_package(LONG), threads=1)
    assert isinstance(model, edgellm.Model)
    return model
