"""Where a package, or a directory of another tool, keeps its chat templates and the special tokens that they write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import corrupt
from edgellm.package.json_data import read_json

TEMPLATE, MORE_TEMPLATES, OLD_TEMPLATE = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_templates(package: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The templates by name: chat_template.jinja and those in a directory of their own; where there are none, those of
    `config`, which is tokenizer_config.json; and chat_template.json, which is a processor's, where there is nothing
    else."""
    files = {"default": package / TEMPLATE} if (package / TEMPLATE).is_file() else {}
    files |= {file.stem: file for file in sorted((package / MORE_TEMPLATES).glob("*.jinja")) if file.is_file()}
    if files:
        return {name: _read_template(file) for name, file in files.items()}
    return templates_of(config.get("chat_template")) or templates_of(
        read_json(package / OLD_TEMPLATE).get("chat_template")
    )


def templates_of(value: object) -> dict[str, str]:
    """The templates by name, of one, of {name: template}, or of a list of {"name": ..., "template": ...}."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        value = {
            str(t["name"]): t["template"] for t in value if isinstance(t, dict) and {"name", "template"} <= t.keys()
        }
    found = value if isinstance(value, dict) else {}
    return {str(name): template for name, template in found.items() if isinstance(template, str)}


def special_tokens(config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the tokens that templates know by name: the usual ones, others that end in _token, and the
    extra_special_tokens that have names. `older`: special_tokens_map.json, which wins where tokenizer_config.json does
    not list its tokens."""
    listed = {} if "added_tokens_decoder" in config else older
    both = {**config, **listed}
    extra = both.get("extra_special_tokens")
    named = {name: value for name, value in both.items() if name in SPECIAL_TOKENS or name.endswith("_token")}
    texts = {name: token_text(value) for name, value in {**named, **(extra if isinstance(extra, dict) else {})}.items()}
    return {name: text for name, text in texts.items() if text is not None}


def token_text(token: Any) -> str | None:
    """A token is its text, or an object with "content"."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise corrupt(f"{path} is not UTF-8 text ({error})") from error
