"""Forms read: multipart/form-data, with files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import msgspec
import python_multipart  # noqa: F401  what starlette parses with, which it misses only when it does
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HttpRequest

from edgellm.errors import FieldError
from edgellm.openai.audio import Upload
from edgellm.openai.options import invalid
from edgellm.server.failures import Refusal
from edgellm.server.http import log, pieces_of
from edgellm.server.settings import ServerSettings

F = TypeVar("F", bound=msgspec.Struct)
FORM = "multipart/form-data"
MOST_FIELDS, MOST_FILES = 64, 1


class _InMemory(MultiPartParser):
    """What is uploaded does not touch a disk."""

    spool_max_size = 0  # never rolled over


async def form_of(http: HttpRequest, kind: type[F], settings: ServerSettings) -> F:
    """A request's form. Raises Refusal or FieldError."""
    content_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        raise Refusal(415, f"the content type is {content_type!r}, expected {FORM}")
    try:
        async with asyncio.timeout(settings.body_seconds):
            items = await _parsed(http, pieces_of(http, settings))
    except TimeoutError:
        raise Refusal(408, f"the request did not arrive within {settings.body_seconds:g} s") from None
    except MultiPartException as error:
        raise Refusal(400, f"the request is not a valid form: {error.message}", code="invalid_form") from error
    given = _gathered(items, kind)
    if settings.log_prompts:
        log.info("%s %s", http.scope["path"], {name: given[name] for name in given if name != "file"})
    try:
        return msgspec.convert(given, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


async def _parsed(http: HttpRequest, pieces: AsyncGenerator[bytes]) -> list[tuple[str, str | Upload]]:
    parser = _InMemory(http.headers, pieces, max_files=MOST_FILES, max_fields=MOST_FIELDS)
    form = await parser.parse()
    try:
        return [
            (name, Upload(await found.read()) if isinstance(found, UploadFile) else found)
            for name, found in form.multi_items()
        ]
    finally:
        await form.close()


def _gathered(items: list[tuple[str, str | Upload]], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Fields by name. A list is named with [] behind, as OpenAI's client does, or without, and has a field for each
    value. Raises FieldError."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    given: dict[str, Any] = {}
    for name, value in items:
        listed = f"{name}[]" if f"{name}[]" in known else name
        if listed.endswith("[]"):
            given.setdefault(listed, []).append(value)
        elif name in given:
            raise FieldError(f"the field {name} is there twice", name, "invalid_request")
        else:
            given[name] = value
    return given
