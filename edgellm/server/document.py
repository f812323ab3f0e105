"""The OpenAPI document, made of the same types that requests and answers are checked against."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgellm.openai import schema
from edgellm.version import __version__

REFUSALS = {
    400: "The request is wrong", 401: "The API key is missing or wrong", 403: "Not from this page or for this host",
    404: "No such model", 408: "The request took too long to arrive", 413: "The request is too large",
    415: "The request is not JSON", 429: "Too many requests wait", 500: "The server failed",
    503: "No memory, or the server is about to end",
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """What is posted to an address. `streams`: with "stream": true the answer is server-sent events."""

    path: str
    handler: Callable[..., Awaitable[Any]]
    request: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    streams: bool = False


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    plain = {"/v1/models": schema.ModelList, "/health": schema.Health}
    types = [kind for one in operations for kind in (one.request, one.answer)] + [*plain.values(), schema.Error]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type: dict[Any, Any] = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {
        path: {"get": {"operationId": _name(path), "responses": _responses(by_type[kind], by_type)}}
        for path, kind in plain.items()
    }
    for one in operations:
        body = {"required": True, "content": {"application/json": {"schema": by_type[one.request]}}}
        responses = _responses(by_type[one.answer], by_type, streams=one.streams)
        paths[one.path] = {"post": {"operationId": _name(one.path), "requestBody": body, "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgellm", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _responses(answer: Any, by_type: dict[Any, Any], *, streams: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": by_type[schema.Error]}}
    refusals = {str(status): {"description": text, "content": error} for status, text in REFUSALS.items()}
    return {"200": {"description": "The answer", "content": content}, **refusals}


def _name(path: str) -> str:
    return path.strip("/").replace("/", "_")
