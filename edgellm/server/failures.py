"""Errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from edgellm.errors import (
    ContextOverflowError,
    EdgellmError,
    FieldError,
    InputError,
    OptionError,
    OutOfMemoryError,
    QueueFullError,
    ServingError,
    TaskError,
)

RETRY_AFTER_S = 1


class Refusal(Exception):
    """What a request gets instead of an answer. `param`: the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": _kind(self.status), "param": self.param, "code": self.code}}


def refusal_of(error: EdgellmError) -> Refusal:
    """The answer to a request that raised an error of ours."""
    message = str(error)
    if isinstance(error, ContextOverflowError):
        return Refusal(400, message, param="messages", code="context_length_exceeded")
    if isinstance(error, FieldError):
        return Refusal(400, message, param=error.param, code=error.code)
    if isinstance(error, InputError | OptionError | TaskError):
        return Refusal(400, message)
    if isinstance(error, QueueFullError):
        return Refusal(429, message, code="queue_full", headers={"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, ServingError):
        return Refusal(503, message, code="shutting_down")
    if isinstance(error, OutOfMemoryError):
        return Refusal(503, message, code="out_of_memory", headers={"Retry-After": str(RETRY_AFTER_S)})
    return Refusal(500, message)


def too_large(most: int) -> Refusal:
    return Refusal(413, f"the request is larger than {most} bytes", code="request_too_large")


def _kind(status: int) -> str:
    """OpenAI's names for kinds of errors."""
    names = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return names.get(status, "invalid_request_error" if status < 500 else "server_error")
