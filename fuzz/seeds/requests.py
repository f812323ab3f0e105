"""Requests of every address of the server, and what may be asked of a text."""

from __future__ import annotations

import json
from typing import Any

from fuzz.http_text import BODIES, SCHEMA, path_of, request
from fuzz.seeds.writing import write_input, write_json

GRAMMAR = 'start: greeting " " NAME ("," NAME)*\ngreeting: "Hello" | "Bye"\nNAME: /[A-Z][a-z]{1,5}/\n'
CONSTRAINTS: dict[str, Any] = {
    "schema": {"json_schema": SCHEMA},
    "many": {
        "json_schema": {
            "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
            "type": "object",
            "properties": {
                "a": {"type": "array", "items": {"type": "number", "multipleOf": 0.25}, "minItems": 1, "maxItems": 3},
                "b": {"type": "string", "pattern": "^[a-c]+$", "minLength": 1, "maxLength": 5},
                "c": {"anyOf": [{"type": "null"}, {"const": 1}, {"$ref": "#/$defs/tree"}]},
                "d": {"type": "string", "format": "date"},
                "e": {"allOf": [{"type": "integer", "exclusiveMinimum": 3}, {"maximum": 9}]},
            },
            "patternProperties": {"^x_": {"type": "boolean"}},
            "required": ["a"],
        }
    },
    "regex": {"regex": "(a|b{2,3})+[^c-f]?\\d*"},
    "grammar": {"grammar": GRAMMAR},
    "choices": {"choices": ["good", "bad", "é 🙂"]},
}


def write_requests() -> None:
    for name, body in BODIES.items():
        write_json("http_body", name, {"path": path_of(name), "body": body})
        write_input("http_request", name, request(path_of(name), json.dumps(body).encode()))
    chunked = json.dumps(BODIES["tokenize"]).encode()
    chunked = b"%x\r\n%s\r\n5;a=b\r\n     \r\n0\r\nX-Behind: 1\r\n\r\n" % (len(chunked), chunked)
    write_input("http_request", "chunked", request("/tokenize", chunked, "Transfer-Encoding: chunked"))
    plain = [request(path, b"", method="GET") for path in ("/", "/v1/models", "/v1/models/tiny", "/health", "/metrics")]
    write_input("http_request", "pipelined", b"".join([*plain, request("/openapi.json", b"", method="GET")]))
    asked = "Access-Control-Request-Method: POST", "Origin: http://localhost", "Expect: 100-continue"
    write_input("http_request", "options", request("/v1/completions", b"{}", *asked, method="OPTIONS"))
    for name, asked_of in CONSTRAINTS.items():
        write_json("constraint", name, asked_of)


if __name__ == "__main__":
    write_requests()
