"""The chat templates of a GGUF file: one, or several with names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.errors import CheckpointError
from edgellm_export.gguf.reader import GgufFile

DEFAULT, NAMED, LIST = "tokenizer.chat_template", "tokenizer.chat_template.", "tokenizer.chat_templates"
FILE = "chat_template.jinja"


@dataclass(frozen=True)
class Templates:
    """`files`: by name in a checkpoint. `config`: what tokenizer_config.json says."""

    files: Mapping[str, str]
    config: Mapping[str, Any]


def chat_templates(file: GgufFile) -> Templates:
    """Raises CheckpointError for a list of names without their templates, or templates that are not text."""
    found = {key: value for key, value in file.metadata.items() if key == DEFAULT or key.startswith(NAMED)}
    wrong = [key for key, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise CheckpointError(f"{file.path}: {wrong[0]} is not text; convert it again with a current llama.cpp")
    named = {key.removeprefix(NAMED): value for key, value in found.items() if key != DEFAULT}
    listed = file.metadata.get(LIST, [])
    absent = [name for name in listed if name not in named] if isinstance(listed, list) else []
    if absent:
        raise CheckpointError(f"{file.path} names the chat template {absent[0]!r} and does not hold it")
    default = found.get(DEFAULT, named.get("tool_use"))  # as in llama.cpp
    if default is None:
        return Templates({}, {})
    if not named:
        return Templates({FILE: default}, {"chat_template": default})
    all_of_them = {"default": default, **named}
    entries = [{"name": name, "template": template} for name, template in all_of_them.items()]
    return Templates({FILE: default}, {"chat_template": entries})
