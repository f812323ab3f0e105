"""What OpenAI's response_format asks of a text, as options."""

from __future__ import annotations

from typing import Any

from edgellm.errors import OptionError


def text_format(given: Any, name: str = "response_format") -> dict[str, Any]:
    """{"type": "text"}, "json_object", or "json_schema" with a schema. Raises OptionError for anything else; `name` is
    the field's."""
    match given:
        case {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"json_schema": {"type": "object"}}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}} | {
            "type": "json_schema",
            "schema": dict(schema),
        }:
            return {"json_schema": schema}
    raise OptionError(f'{name} is none of {{"type": "text"}}, "json_object", and "json_schema" with a schema')
