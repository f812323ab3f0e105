"""/v1/chat/completions and its relatives: what the model says alone, in OpenAI's shape; by hand, and with OpenAI's own
client."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import openai
import pytest

import edgellm
from conftest_of_server import ENDLESS, LONG, PackageMaker, Server
from edgellm.ort.kernels import library
from edgellm.server import ServerSettings, create_app
from edgellm.server.http import Chunks
from edgellm.server.pool import Loaded
from edgellm.serving import Engine

USER = [{"role": "user", "content": "hello"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def events(server: Server, path: str, **body: Any) -> Iterator[Any]:
    """The chunks of a stream, which ends as it has to."""
    with server.http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    for line in lines:
        assert line.startswith("data: ")
        yield json.loads(line.removeprefix("data: "))


def text_of(chunks: list[Any], index: int = 0) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_an_answer_is_that_of_chat(server: Server, long_model: edgellm.Model) -> None:
    found = server.ask(CHAT, model="tiny", messages=USER, max_tokens=12, temperature=0)
    expected = long_model.chat(USER, max_new_tokens=12, do_sample=False)
    assert found["object"] == "chat.completion"
    assert found["choices"][0]["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert found["choices"][0]["finish_reason"] == "length"
    read, new = expected.prompt_tokens, len(expected.tokens)
    assert found["usage"] == {"prompt_tokens": read, "completion_tokens": new, "total_tokens": read + new}


def test_a_stream_adds_up_to_the_answer(server: Server) -> None:
    asked = {"messages": USER, "max_tokens": 30, "temperature": 0.8, "seed": 5, "n": 2}
    whole = server.ask(CHAT, **asked)
    chunks = list(events(server, CHAT, **asked, stream_options={"include_usage": True}))
    for index in range(2):
        assert text_of(chunks, index) == whole["choices"][index]["message"]["content"]
    assert whole["choices"][0] != whole["choices"][1]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert reasons == ["length", "length"]


def test_logprobs(server: Server, long_model: edgellm.Model) -> None:
    asked = {"messages": USER, "max_tokens": 5, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    content = server.ask(CHAT, **asked)["choices"][0]["logprobs"]["content"]
    expected = long_model.chat(USER, max_new_tokens=5, do_sample=False, logprobs=True)
    assert [one["logprob"] for one in content] == pytest.approx(expected.logprobs)
    for one in content:
        assert len(one["top_logprobs"]) == 3
        assert {name: one[name] for name in ("token", "logprob", "bytes")} == one["top_logprobs"][0], "greedy"
    text = {"prompt": "hello", "max_tokens": 30, "temperature": 0, "logprobs": 1, "echo": True}
    whole = server.ask(TEXT, **text)["choices"][0]["logprobs"]
    parts = [c["choices"][0]["logprobs"] for c in events(server, TEXT, **text)]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [one for part in parts for one in part[name]] == whole[name], (
            "also of tokens that are no text by themselves"
        )
    assert (len(whole["tokens"]), whole["text_offset"][0]) == (30, len("hello"))
    streamed = [c["choices"][0]["logprobs"] for c in events(server, CHAT, **asked) if c["choices"][0]["logprobs"]]
    assert [one for part in streamed for one in part["content"]] == content


def test_a_text_ends_before_a_stop_string(server: Server, long_model: edgellm.Model) -> None:
    bias = {str(i): 20.0 for i in range(97, 123)}  # lower case letters
    whole = long_model.generate("hello", max_new_tokens=40, do_sample=False, logit_bias=bias).text
    stop = whole[7:9]
    expected = whole[: whole.index(stop)]
    asked = {"prompt": "hello", "max_tokens": 40, "temperature": 0, "stop": [stop, "never there"], "logit_bias": bias}
    found = server.ask(TEXT, **asked)["choices"][0]
    assert (found["text"], found["finish_reason"]) == (expected, "stop")
    chunks = list(events(server, TEXT, **asked))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected


def test_several_prompts_of_texts_and_tokens(server: Server, long_model: edgellm.Model) -> None:
    found = server.ask(TEXT, prompt=["one", "two"], max_tokens=4, temperature=0, echo=True)
    alone = [long_model.generate(text, max_new_tokens=4, do_sample=False).text for text in ("one", "two")]
    assert [choice["text"] for choice in found["choices"]] == [f"one{alone[0]}", f"two{alone[1]}"]
    ids = [long_model.tokenizer.encode(text).tolist() for text in ("one", "two")]
    again = server.ask(TEXT, prompt=ids, max_tokens=4, temperature=0)
    assert [choice["text"] for choice in again["choices"]] == alone
    assert server.ask(TEXT, prompt=ids[0], max_tokens=4, temperature=0)["choices"][0]["text"] == alone[0]
    logprobs = server.ask(TEXT, prompt="one", max_tokens=4, temperature=0, logprobs=2)["choices"][0]["logprobs"]
    assert [len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [4] * 4


def test_penalties_and_biases_arrive(server: Server, long_model: edgellm.Model) -> None:
    biased = server.ask(TEXT, prompt="a", max_tokens=4, temperature=0, logit_bias={"65": 100})
    assert biased["choices"][0]["text"] == "AAAA"
    asked: dict[str, Any] = {"presence_penalty": 1.5, "frequency_penalty": 0.5}
    found = server.ask(TEXT, prompt="a", max_tokens=20, temperature=0, repetition_penalty=1.2, **asked)
    expected = long_model.generate("a", max_new_tokens=20, do_sample=False, repetition_penalty=1.2, **asked)
    assert found["choices"][0]["text"] == expected.text


def test_requests_at_once_get_what_each_gets_alone(server: Server) -> None:
    asked = [{"prompt": "x" * n, "max_tokens": 5 + n, "temperature": n % 2, "seed": n} for n in range(1, 13)]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda body: server.ask(TEXT, **body)["choices"], asked))
    assert together == [server.ask(TEXT, **body)["choices"] for body in asked]


def test_openai_client(client: openai.OpenAI, long_model: edgellm.Model) -> None:
    expected = long_model.chat(USER, max_new_tokens=9, do_sample=False).text
    assert [model.id for model in client.models.list()] == ["tiny"]
    messages: Any = USER
    answer = client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=9, temperature=0)
    assert answer.choices[0].message.content == expected
    assert answer.usage is not None
    stream = client.chat.completions.create(model="tiny", messages=messages, max_tokens=9, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    with pytest.raises(openai.NotFoundError, match="does not exist here; there is tiny"):
        client.chat.completions.create(model="gpt-5", messages=messages)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=9, n=2, temperature=0)
    assert "num_return_sequences" in caught.value.message


def test_responses(client: openai.OpenAI, long_model: edgellm.Model) -> None:
    """With OpenAI's client, which checks the shapes of the events."""
    conversation = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    expected = long_model.chat(conversation, max_new_tokens=9, do_sample=False)
    asked: dict[str, Any] = {"model": "tiny", "instructions": "be brief", "max_output_tokens": 9, "temperature": 0}
    found = client.responses.create(input="hello", **asked)
    assert (found.output_text, found.status) == (expected.text, "incomplete")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (expected.prompt_tokens, 9)
    parts: Any = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    assert client.responses.create(input=parts, **asked).output_text == expected.text
    events = list(client.responses.create(input=parts, stream=True, **asked))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected.text
    kinds = [event.type.removeprefix("response.") for event in events if "delta" not in event.type]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.done", "content_part.done",
        "output_item.done", "incomplete",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with pytest.raises(openai.BadRequestError, match="stores nothing"):
        client.responses.create(input="more", previous_response_id=found.id, **asked)
    seen: Any = [{"type": "text", "text": "What is that?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    with pytest.raises(openai.BadRequestError, match="reads text alone"):
        client.chat.completions.create(model=asked["model"], messages=[{"role": "user", "content": seen}])
    images: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]
    with pytest.raises(openai.BadRequestError, match="reads text alone"):
        client.responses.create(input=images, **asked)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_tokens_and_texts(server: Server, long_model: edgellm.Model) -> None:
    ids = long_model.tokenizer.encode("héllo").tolist()
    assert server.ask("/tokenize", prompt="héllo") == {
        "tokens": ids,
        "count": len(ids),
        "max_model_len": LONG.context_length,
    }
    assert server.ask("/detokenize", tokens=ids) == {"prompt": "héllo"}
    rendered = long_model.tokenizer.encode(long_model.chat_template.render(USER), add_special_tokens=False).tolist()
    assert server.ask("/tokenize", messages=USER)["tokens"] == rendered


def test_what_the_server_says_of_itself(serve: Callable[..., Server]) -> None:
    server = serve("one", "two")
    assert server.http.get("/health").json() == {"status": "ok"}
    cards = server.http.get("/v1/models").json()["data"]
    assert [(card["id"], card["loaded"]) for card in cards] == [("one", False), ("two", False)]
    server.ask(TEXT, model="two", prompt="a", max_tokens=3)
    assert server.http.get("/v1/models/two").json()["loaded"]
    assert server.http.get("/v1/models/three").status_code == 404
    assert server.stats()["new_tokens_total"] == 3
    assert server.post(TEXT, {"prompt": "a"}).status_code == 404, "which one?"


def test_models_within_a_budget_of_memory(serve: Callable[..., Server], make_package: Any) -> None:
    size = sum(file.stat().st_size for file in make_package(LONG).iterdir())
    server = serve("one", "two", "three", memory_bytes=2 * size + size // 2)
    for name in ("one", "two", "three", "two"):
        server.ask(TEXT, model=name, prompt="a", max_tokens=2)
    loaded = [card["id"] for card in server.http.get("/v1/models").json()["data"] if card["loaded"]]
    assert loaded == ["two", "three"], "the least recently used one went"


# Those who leave


def test_a_client_that_goes_ends_its_request(serve: Callable[..., Server]) -> None:
    server = serve()
    server.ask(TEXT, prompt="a", max_tokens=1)
    before = server.stats()["new_tokens_total"]
    body = {"prompt": "a", "max_tokens": ENDLESS, "temperature": 0}
    with server.http.stream("POST", TEXT, json={**body, "stream": True}) as response:
        next(response.iter_lines())
    with pytest.raises(Exception, match="timed out"):
        server.post(TEXT, body, timeout=0.2)
    deadline = time.monotonic() + 20
    while server.stats()["requests_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.stats()["new_tokens_total"] - before < ENDLESS


def test_prompts_before_one_that_is_refused_are_not_answered(serve: Callable[..., Server]) -> None:
    server = serve()
    refused = server.post(TEXT, {"prompt": ["a", "b", "c" * 40_000], "max_tokens": ENDLESS, "temperature": 0})
    assert refused.status_code == 400
    deadline = time.monotonic() + 20
    while server.stats()["requests_running"] or server.stats()["requests_waiting"]:
        assert time.monotonic() < deadline
    assert server.stats()["new_tokens_total"] < ENDLESS


def test_chunks_that_nobody_takes_end_their_answers(long_model: edgellm.Model) -> None:
    async def nothing() -> AsyncIterator[Any]:
        yield None

    loaded = Loaded("tiny", long_model, None)
    with Engine(long_model) as engine:
        answer = engine.submit("a", max_new_tokens=ENDLESS, do_sample=False)
        chunks = Chunks(nothing(), [answer], loaded)
        assert loaded.users == 1
        del chunks
        assert loaded.users == 0
        assert answer.result(20).finish_reason == "cancelled"


def test_a_queue_that_is_full(serve: Callable[..., Server]) -> None:
    server = serve(max_rows=1, max_waiting=1)
    body = {"prompt": "a", "max_tokens": 1500, "temperature": 0}
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: server.post(TEXT, body), range(6)))
    refused = [response for response in found if response.status_code == 429]
    assert refused
    assert all(response.headers["Retry-After"] == "1" for response in refused)
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    assert len([response for response in found if response.status_code == 200]) >= 1


def test_more_texts_than_there_is_ever_room_for(serve: Callable[..., Server]) -> None:
    server = serve(max_rows=2, max_waiting=1)
    refused = server.post(TEXT, {"prompt": ["a"] * 4, "max_tokens": 1})
    assert refused.status_code == 400
    assert "at most 3" in refused.json()["error"]["message"]


def test_an_answer_that_takes_too_long(serve: Callable[..., Server]) -> None:
    server = serve(max_seconds=0.2)
    found = server.ask(TEXT, prompt="a", max_tokens=ENDLESS, temperature=0)
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] < ENDLESS


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
def test_a_cache_of_another_type(serve: Callable[..., Server], make_package: PackageMaker) -> None:
    alone = edgellm.load(make_package(LONG), threads=1, kv_cache="bfloat16")
    assert isinstance(alone, edgellm.Model)
    body = {"prompt": "hello", "max_tokens": 30, "temperature": 0}
    found = serve(kv_cache="bfloat16").ask(TEXT, **body)["choices"][0]
    assert found["text"] == alone.generate("hello", max_new_tokens=30, do_sample=False).text
    half = make_package(replace(LONG, dtype="float16"))
    with pytest.raises(edgellm.OptionError, match="bfloat16"):
        create_app({"half": half}, ServerSettings(kv_cache="bfloat16"))


def test_stop_strings_are_looked_for_in_the_answer_alone(server: Server) -> None:
    asked: dict[str, Any] = {"prompt": "a\n", "choices": ["\nbc"], "max_tokens": 9, "temperature": 0}
    for stop, text in (("\n\n", "\nbc"), (["a", "\nb"], ""), ("c", "\nb"), (["\n\n", "\n"], "")):
        found = server.ask(TEXT, **asked, stop=stop)["choices"][0]
        assert (found["text"], found["finish_reason"]) == (text, "stop")
