"""`edgellm serve` as a program: it says where it listens, finishes what runs when it is told to end, and serves an
encoder's vectors."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import edgellm


@contextmanager
def serving(*arguments: Any, **environment: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    port = [] if "--port" in arguments else ["--port", "0"]
    command = [sys.executable, "-m", "edgellm", "serve", *map(str, arguments), *port, "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert process.stderr is not None
    try:
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield process, http
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_what_runs_is_finished_when_the_server_is_told_to_end(package: Callable[..., Path]) -> None:
    body = {"prompt": "hello", "max_tokens": 80, "temperature": 0, "logit_bias": {"2": -100}}
    with serving(f"tiny={package('llama')}") as (process, http):
        assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["tiny"]
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert process.wait(20) == 0


def test_a_server_that_is_killed_leaves_nothing(package: Callable[..., Path]) -> None:
    with serving(package("llama")) as (process, http):
        process.kill()
        assert process.wait(20) == -signal.SIGKILL
        with pytest.raises(httpx.HTTPError):
            http.get("/health")


def test_a_key_of_the_environment(package: Callable[..., Path]) -> None:
    with serving(package("llama"), EDGELLM_API_KEY="secret") as (_, http):
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["=x"], "'=x' is no package, expected PKG or NAME=PKG"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_served(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "edgellm", "serve", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode != 0
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.real_model
def test_vectors(minilm_package: Callable[[str], Path]) -> None:
    """Those of `embed`, in each way that OpenAI gives them; and documents in order of their likeness."""
    path = minilm_package("int8")
    model = edgellm.load(path, threads=1)
    texts = ["How do I bake bread?", "Flour, water and yeast make a dough.", "The train leaves at nine."]
    expected = model.embed(texts)
    with serving(f"minilm={path}") as (_, http):

        def ask(where: str, **body: Any) -> Any:
            response = http.post(where, json=body)
            assert response.status_code == 200, response.text
            return response.json()

        found = ask("/v1/embeddings", model="minilm", input=texts)
        np.testing.assert_array_equal(np.array([one["embedding"] for one in found["data"]], np.float32), expected)
        assert found["usage"]["prompt_tokens"] == sum(len(model.tokenizer.encode(text)) for text in texts)
        packed = ask("/v1/embeddings", input=texts[0], encoding_format="base64")["data"][0]["embedding"]
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), np.float32), expected[0], atol=1e-7)
        ids = model.tokenizer.encode(texts[0]).tolist()
        assert ask("/v1/embeddings", input=ids)["data"][0]["embedding"] == pytest.approx(expected[0], abs=1e-6)
        short = np.array(ask("/v1/embeddings", input=texts[0], dimensions=64)["data"][0]["embedding"])
        np.testing.assert_allclose(short, expected[0][:64] / np.linalg.norm(expected[0][:64]), rtol=1e-5)
        assert http.post("/v1/embeddings", json={"input": "a", "dimensions": 4000}).status_code == 400
        assert http.post("/v1/completions", json={"prompt": "a"}).json()["error"]["param"] == "model"
        ranked = ask("/rerank", query=texts[0], documents=texts[:0:-1], top_n=2, return_documents=True)["results"]
        assert [one["document"]["text"] for one in ranked] == texts[1:]
        assert ranked[0]["relevance_score"] == pytest.approx(float(expected[0] @ expected[1]), abs=1e-5)
