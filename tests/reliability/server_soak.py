"""A server under load for a long time: python server_soak.py PACKAGE --minutes 30 --clients 32 [--json FILE]

Clients ask for greedy answers of mixed lengths, streamed and not. A fifth of them leave: in the middle of a stream,
before an answer, in the middle of a header. One request in twenty is malformed or too large. Every answer is compared
with what the model gives alone; every status that is not expected is a failure, and so is memory that grows, a request
that still runs when all have left, and an end that is not 0. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

import edgellm

PROMPTS = ["The sea", "A short story of a fox:", "List three colours:", "Why does it rain? " * 12, "def add(a, b):"]
LEAVES, WRONG = 0.2, 0.05  # shares of the requests
GROWTH = 1.02  # of the memory of the last third, over that of the second
BAD: list[tuple[bytes, int]] = [
    (b'{"prompt": ', 400),
    (b'{"prompt": "a", "unknown": 1}', 400),
    (b'{"prompt": [1, "a"]}', 400),
    (b'{"prompt": "a", "max_tokens": -1}', 400),
    (b'{"prompt": "' + b"a" * (5 << 20) + b'"}', 413),
    (b"\x00" * 100, 400),
]


class Soak:
    def __init__(self, url: str, expected: dict[tuple[str, int], str], seconds: float) -> None:
        self.url, self.expected, self.end = url, expected, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def client(self, seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=600, trust_env=False) as http:
            while time.monotonic() < self.end:
                try:
                    self.ask(http, draw)
                except Exception as error:
                    self.problems.append(f"{type(error).__name__}: {error}")

    def ask(self, http: httpx.Client, draw: random.Random) -> None:
        headers = {"content-type": "application/json"}
        if draw.random() < WRONG:
            content, status = draw.choice(BAD)
            with contextlib.suppress(httpx.WriteError):  # it may answer before all was sent
                self.expect(http.post("/v1/completions", content=content, headers=headers).status_code, status)
            self.counts["refused"] += 1
            return
        wanted = draw.choice(list(self.expected))
        body: dict[str, Any] = {"prompt": wanted[0], "max_tokens": wanted[1], "temperature": 0}
        if draw.random() < LEAVES:
            self.leave(http, body, draw)
            self.counts["left"] += 1
            return
        if draw.random() < 0.5:
            with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
                data = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
            text = "".join(choice["text"] for line in data for choice in json.loads(line)["choices"])
        else:
            response = http.post("/v1/completions", json=body)
            self.expect(response.status_code, 200)
            text = response.json()["choices"][0]["text"]
        self.counts["answered"] += 1
        if text != self.expected[wanted]:
            self.problems.append(f"{wanted}: {text!r} instead of {self.expected[wanted]!r}")

    def leave(self, http: httpx.Client, body: dict[str, Any], draw: random.Random) -> None:
        match draw.randrange(4):
            case 0:
                with contextlib.suppress(httpx.TimeoutException):  # or the answer was there by then
                    http.post("/v1/completions", json=body, timeout=draw.uniform(0.01, 0.2))
            case 1:
                host, _, port = self.url.removeprefix("http://").partition(":")
                with socket.create_connection((host, int(port)), timeout=60) as opened:
                    opened.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
                    time.sleep(draw.uniform(0, 1))
            case _:
                with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
                    lines = response.iter_lines()
                    for _ in range(draw.randint(1, 8)):
                        next(lines, None)

    def expect(self, found: int, wanted: int) -> None:
        if found != wanted:
            self.problems.append(f"status {found}, expected {wanted}")


def still_running(url: str) -> float:
    """Requests, once those that left had the time to end."""
    deadline = time.monotonic() + 10
    while True:
        text = httpx.get(f"{url}/metrics", trust_env=False).text
        counts = re.findall(r'edgellm_requests_(?:running|waiting)\{model="model"\} (\S+)', text)
        left = sum(map(float, counts))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = edgellm.load(arguments.package)
    assert isinstance(model, edgellm.Model)
    expected = {
        (text, new): model.generate(text, max_new_tokens=new, do_sample=False).text
        for text in PROMPTS
        for new in (8, 24, 48)
    }
    del model
    command = [sys.executable, "-m", "edgellm", "serve", f"model={arguments.package}", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    url = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
    threading.Thread(target=server.stderr.read, daemon=True).start()
    soak = Soak(url, expected, 60 * arguments.minutes)
    clients = [threading.Thread(target=soak.client, args=(seed,)) for seed in range(arguments.clients)]
    for client in clients:
        client.start()
    memory = []
    while any(client.is_alive() for client in clients):
        memory.append(resident_mb(server.pid))
        time.sleep(1)
    running = still_running(url)
    server.terminate()
    status = server.wait(60)
    third = len(memory) // 3
    growth = max(memory[2 * third :]) / max(memory[third : 2 * third])
    report = {
        "minutes": arguments.minutes, "clients": arguments.clients, **soak.counts, "problems": len(soak.problems),
        "first_problems": soak.problems[:5], "peak_mb": round(max(memory)), "growth": round(growth, 4),
        "still_running": running, "exit_status": status,
    }  # fmt: skip
    print(json.dumps(report))
    if arguments.json:
        arguments.json.write_text(json.dumps({**report, "memory_mb": memory}))
    return int(bool(soak.problems) or growth > GROWTH or running or status)


if __name__ == "__main__":
    sys.exit(main())
