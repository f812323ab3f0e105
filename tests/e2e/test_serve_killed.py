"""`edgellm serve` killed and told to end under load: a client sees a broken connection, never a part of an answer that
looks like a whole one, and what is asked again is answered as before."""

from __future__ import annotations

import json
import queue
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import edgellm
from test_serve_command import serving

CLIENTS = 6
NEW = 40  # tokens of an answer
TEXTS = [f"{letter} {number}" for letter in "abcd" for number in range(12)]


class Broken(Exception):
    """An answer that is not there, or not to its end. `begun`: some of it was."""

    def __init__(self, begun: bool) -> None:
        self.begun = begun


def asked(text: str, *, streamed: bool) -> dict[str, Any]:
    return {"prompt": text, "max_tokens": NEW, "temperature": 0, "logit_bias": {"2": -100}, "stream": streamed}


def answer(http: httpx.Client, text: str, *, streamed: bool, begun: Callable[[], None] = lambda: None) -> str:
    """Raises Broken. What shows that an answer is whole is what shows it to every client: the length of a body, a
    finish_reason and [DONE] of a stream."""
    body, parts = asked(text, streamed=streamed), []
    try:
        if not streamed:
            response = http.post("/v1/completions", json=body)
            if response.status_code == 503:
                raise Broken(begun=False)
            assert response.status_code == 200, response.text
            return str(response.json()["choices"][0]["text"])
        with http.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                parts.append(line.removeprefix("data: "))
                begun()
    except httpx.TransportError:
        raise Broken(bool(parts)) from None
    chunks = [json.loads(part)["choices"][0] for part in parts if part.startswith("{")]
    if "[DONE]" not in parts:
        assert all(chunk["finish_reason"] is None for chunk in chunks)
        raise Broken(bool(parts))
    assert [chunk["finish_reason"] for chunk in chunks if chunk["finish_reason"]] == ["length"]
    return "".join(chunk["text"] for chunk in chunks)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@dataclass
class Load:
    """Clients that ask for each text until it has a whole answer."""

    url: str
    left: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    found: list[tuple[str, str]] = field(default_factory=list)
    broken: Counter[bool] = field(default_factory=Counter)  # by whether some of it had come
    problems: list[Exception] = field(default_factory=list)

    def client(self, seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as http:
            while True:
                try:
                    text = self.left.get_nowait()
                except queue.Empty:
                    return
                try:
                    self.found.append((text, answer(http, text, streamed=draw.random() < 0.6)))
                except Broken as error:
                    self.broken[error.begun] += 1
                    self.left.put(text)
                    time.sleep(0.1)
                except Exception as error:
                    self.problems.append(error)
                    return


@contextmanager
def clients(load: Load) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=load.client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()


def test_killed_again_and_again_nothing_is_lost_wrong_or_there_twice(package: Callable[..., Path]) -> None:
    path, port, draw = package("llama"), free_port(), random.Random(1)
    model = edgellm.load(path, threads=1)
    assert isinstance(model, edgellm.Model)
    expected = {
        text: model.generate(text, max_new_tokens=NEW, do_sample=False, logit_bias={2: -100.0}).text for text in TEXTS
    }
    load = Load(f"http://127.0.0.1:{port}")
    for text in TEXTS:
        load.left.put(text)
    with serving(path, "--port", port) as (server, _), clients(load):
        kill_after(server, load, answers=4, seconds=draw.uniform(0, 0.05))
        for answers in (14, 28):
            with serving(path, "--port", port) as (again, _):
                kill_after(again, load, answers=answers, seconds=draw.uniform(0, 0.05))
        with serving(path, "--port", port):
            while len(load.found) < len(TEXTS) and not load.problems:
                time.sleep(0.05)
    assert load.problems == []
    assert sorted(load.found) == sorted(expected.items())
    assert load.broken[True], "or nothing was in the middle"


def kill_after(server: Any, load: Load, *, answers: int, seconds: float) -> None:
    while len(load.found) < answers and not load.problems:
        time.sleep(0.005)
    time.sleep(seconds)
    server.kill()
    server.wait(20)


@pytest.mark.parametrize("moment", [1, 9])
def test_told_to_end_it_finishes_what_it_has_begun(moment: int, package: Callable[..., Path]) -> None:
    """`moment`: of how many answers something was there."""
    outcomes: list[tuple[float, float | None, str]] = []  # when it was asked, when it began, what came of it
    ended = threading.Event()
    begun = threading.Semaphore(0)

    def client(http: httpx.Client, number: int) -> None:
        for n in range(1000):
            start, first = time.monotonic(), None

            def tell() -> None:
                nonlocal first
                if first is None:
                    first = time.monotonic()
                    begun.release()

            try:
                answer(http, f"{number} {n}", streamed=number % 2 == 0, begun=tell)
                outcomes.append((start, first, "whole"))
            except Broken:
                outcomes.append((start, first, "refused" if first is None else "broken"))
                if ended.is_set():
                    return

    with serving(package("llama")) as (server, http):
        opened = [httpx.Client(base_url=http.base_url, timeout=60, trust_env=False) for _ in range(CLIENTS)]
        threads = [threading.Thread(target=client, args=(one, n)) for n, one in enumerate(opened)]
        for thread in threads:
            thread.start()
        for _ in range(moment):
            assert begun.acquire(timeout=60)
        server.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert server.wait(30) == 0
        ended.set()
        for thread, one in zip(threads, opened, strict=True):
            thread.join(60)
            one.close()
    assert [outcome for outcome in outcomes if outcome[2] == "broken"] == []
    assert {what for start, _, what in outcomes if start < told - 2} <= {"whole"}, "asked well before"
    assert any(what == "whole" for start, _, what in outcomes if start < told)
    assert sum(what == "refused" for _, _, what in outcomes) >= CLIENTS
    assert all(what == "refused" for start, _, what in outcomes if start > told + 5), "its port is closed by then"
