"""What a package's files say of how to generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgellm.package.json_file import read_json

Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


# Settings that genai_config.json shares with generation_config.json, and whether a value makes sense. Lengths and beams
# are left out: the builder of onnxruntime-genai writes the context's length and one beam, whatever the model.
SEARCH: Mapping[str, Check] = {
    "repetition_penalty": lambda value: _is_number(value) and value > 0,
    "min_length": lambda value: type(value) is int and value >= 0,
    "do_sample": lambda value: type(value) is bool,
}
SAMPLING: Mapping[str, Check] = {
    "temperature": lambda value: _is_number(value) and value > 0,
    "top_k": lambda value: type(value) is int and value >= 0,
    "top_p": lambda value: _is_number(value) and 0 < value <= 1,
}


def read_generation_defaults(package: Path) -> dict[str, Any]:
    """generation_config.json; without one, what genai_config.json says under "search". Raises PackageCorruptError."""
    if (package / "generation_config.json").is_file():
        return read_json(package / "generation_config.json")
    search = read_json(package / "genai_config.json").get("search")
    if not isinstance(search, dict):
        return {}
    heard = {**SEARCH, **(SAMPLING if search.get("do_sample") is True else {})}
    return {name: search[name] for name, fits in heard.items() if name in search and fits(search[name])}
