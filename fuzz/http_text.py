"""A request of each address, and requests as they go over the wire."""

from __future__ import annotations

from typing import Any

USER = [{"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "model": "tiny", "messages": [{"role": "system", "content": "Be brief."}, *USER], "max_tokens": 3,
        "temperature": 0.7, "top_p": 0.9, "seed": 1, "n": 2, "stop": ["\n"], "logprobs": True, "top_logprobs": 2,
        "presence_penalty": 0.5, "logit_bias": {"97": 2.0}, "stream": True, "stream_options": {"include_usage": True},
    },
    "chat_tools": {
        "model": "tiny", "tools": [TOOL], "tool_choice": "auto", "max_completion_tokens": 4, "temperature": 0,
        "messages": [
            *USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sun"}]},
        ],
        "chat_template_kwargs": {"enable_thinking": False}, "reasoning_budget": 2, "parallel_tool_calls": True,
    },
    "chat_forced": {
        "model": "tiny", "messages": USER, "max_tokens": 40, "temperature": 0, "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {**TOOL["function"], "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}}, "reasoning_effort": "low",
    },
    "chat_schema": {
        "model": "tiny", "messages": USER, "max_tokens": 24, "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}},
    },
    "completions": {
        "model": "tiny", "prompt": ["a", "bc"], "max_tokens": 3, "temperature": 1, "seed": 3, "top_k": 5, "min_p": 0.1,
        "logprobs": 2, "echo": True, "repetition_penalty": 1.1, "best_of": 1, "frequency_penalty": 0.1, "user": "u",
    },
    "completions_ids": {
        "model": "tiny", "prompt": [[97, 98], [99]], "max_tokens": 2, "stream": True, "regex": "[a-f]+",
    },
    "responses": {
        "model": "tiny", "instructions": "Be brief.", "max_output_tokens": 3, "temperature": 0, "stream": True,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
        "text": {"format": {"type": "text"}}, "metadata": {"a": "b"},
    },
    "responses_tools": {
        "model": "tiny", "max_output_tokens": 40, "temperature": 0, "tools": [{"type": "function", **TOOL["function"]}],
        "tool_choice": "required", "parallel_tool_calls": False, "reasoning": {"effort": "low"},
        "input": [
            *USER, {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
        ],
    },
    "responses_text": {
        "model": "tiny", "input": "hello", "max_output_tokens": 24, "temperature": 0, "store": False,
        "text": {"format": {"type": "json_schema", "name": "p", "schema": SCHEMA}},
    },
    "embeddings": {"model": "vectors", "input": ["a cat", "a dog"], "encoding_format": "base64", "dimensions": 8},
    "embeddings_ids": {"model": "vectors", "input": [5, 6, 7], "encoding_format": "float"},
    "rerank": {"model": "vectors", "query": "a", "documents": ["b", "a cat"], "top_n": 1, "return_documents": True},
    "tokenize": {"model": "tiny", "prompt": "héllo", "add_special_tokens": False},
    "tokenize_chat": {"model": "tiny", "messages": USER},
    "detokenize": {"model": "tiny", "tokens": [104, 256, 195, 169]},
}  # fmt: skip
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80>\x00\x00\x00}\x00\x00\x02\x00\x10\x00data"
WAV += (3200).to_bytes(4, "little") + bytes(range(32)) * 100
FORMS: dict[str, dict[str, Any]] = {
    "transcriptions": {
        "model": "speech", "file": WAV, "language": "en", "response_format": "verbose_json", "temperature": 0.5,
        "timestamp_granularities[]": ["word", "segment"],
    },
    "transcriptions_stream": {"model": "speech", "file": WAV, "stream": True, "chunking_strategy": "auto"},
    "translations": {"model": "speech", "file": WAV, "response_format": "srt"},
}  # fmt: skip
PATHS = {
    "chat": "/v1/chat/completions", "completions": "/v1/completions", "responses": "/v1/responses",
    "embeddings": "/v1/embeddings", "rerank": "/rerank", "tokenize": "/tokenize", "detokenize": "/detokenize",
    "transcriptions": "/v1/audio/transcriptions", "translations": "/v1/audio/translations",
}  # fmt: skip


def path_of(name: str) -> str:
    """The address of a body."""
    return PATHS[name.partition("_")[0]]


def request(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    lines += [] if any("chunked" in header for header in headers) else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
