"""The OpenAPI document, made of the same types that requests and answers are checked against."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgellm.openai import schema
from edgellm.openai.audio import Upload
from edgellm.version import __version__

JSON, FORM, TEXT = "application/json", "multipart/form-data", {"type": "string"}
REFUSALS = {
    400: "The request is wrong", 401: "The API key is missing or wrong", 403: "Not from this page or for this host",
    404: "No such model", 408: "The request took too long to arrive", 413: "The request is too large",
    415: "The request is of another content type", 429: "Too many requests wait", 500: "The server failed",
    503: "No memory, or the server is about to end",
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """What is posted to an address. `event`: what the answer to one with "stream": true is made of. `verbose`: what a
    form's answer may be instead, beside plain text."""

    path: str
    handler: Callable[..., Awaitable[Any]]
    request: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    event: type[msgspec.Struct] | None = None
    verbose: type[msgspec.Struct] | None = None

    @property
    def is_form(self) -> bool:
        return self.verbose is not None

    @property
    def types(self) -> list[type[msgspec.Struct]]:
        return [kind for kind in (self.request, self.answer, self.event, self.verbose) if kind is not None]


# What is got from an address: a type, or what kind of text.
PLAIN: dict[str, Any] = {
    "/": "text/html", "/v1/models": schema.ModelList, "/v1/models/{name}": schema.ModelCard, "/health": schema.Health,
    "/metrics": "text/plain", "/openapi.json": dict[str, Any],
}  # fmt: skip


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    answers = [kind for kind in PLAIN.values() if not isinstance(kind, str)]
    types = [*(kind for one in operations for kind in one.types), *answers, schema.Error]
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_of_no_json, ref_template="#/components/schemas/{name}"
    )
    by_type: dict[Any, Any] = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {path: {"get": _get(path, kind, by_type)} for path, kind in PLAIN.items()}
    for one in operations:
        body = {"required": True, "content": {FORM if one.is_form else JSON: {"schema": by_type[one.request]}}}
        content = _content(one.answer, by_type, one.event)
        if one.verbose is not None:
            content[JSON] = {"schema": {"anyOf": [by_type[one.answer], by_type[one.verbose]]}}
            content["text/plain"] = {"schema": TEXT}
        responses = _responses(content, by_type)
        paths[one.path] = {"post": {"operationId": _name(one.path), "requestBody": body, "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgellm", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _get(path: str, kind: Any, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    named = re.findall(r"{(\w+)}", path)
    given = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named]
    operation = {"operationId": _name(path), "responses": _responses(_content(kind, by_type), by_type)}
    return {**operation, "parameters": given} if given else operation


def _content(kind: Any, by_type: Mapping[Any, Any], event: Any = None) -> dict[str, Any]:
    if isinstance(kind, str):
        return {kind: {"schema": TEXT}}
    content = {JSON: {"schema": by_type[kind]}}
    if event is not None:
        content["text/event-stream"] = {"schema": _event([by_type[event], by_type[schema.Error]])}
    return content


def _of_no_json(kind: type) -> dict[str, Any]:
    """The schema of a form's file."""
    if kind is not Upload:
        raise NotImplementedError
    return {"type": "string", "format": "binary"}


def _event(bodies: list[Any]) -> dict[str, Any]:
    """A server-sent event with one of these; the last one may say that it is the last."""
    body = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": bodies}}
    data = {"anyOf": [{"const": "[DONE]"}, body]}
    return {"type": "object", "properties": {"event": TEXT, "data": data}, "required": ["data"]}


def _responses(content: dict[str, Any], by_type: Mapping[Any, Any]) -> dict[str, Any]:
    error = {JSON: {"schema": by_type[schema.Error]}}
    refusals = {str(status): {"description": text, "content": error} for status, text in REFUSALS.items()}
    return {"200": {"description": "The answer", "content": content}, **refusals}


def _name(path: str) -> str:
    return re.sub(r"\W+", "_", path).strip("_") or "page"
