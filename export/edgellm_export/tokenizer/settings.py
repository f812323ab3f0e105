"""What a checkpoint's JSON files say of its tokenizer: options, special tokens and added tokens, as transformers reads
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from tokenizers import AddedToken

from edgellm.errors import CheckpointError
from edgellm.text.template_files import SPECIAL_TOKENS as NAMES
from edgellm.text.template_files import token_text
from edgellm.text.tokenizer_errors import library_errors
from edgellm_export.checkpoint.json_file import read_json

CONFIG, SPECIAL_MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MODEL_SPECIFIC = "model_specific_special_tokens"
EXTRA, ADDITIONAL, DECODER = "extra_special_tokens", "additional_special_tokens", "added_tokens_decoder"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

TYPE, TOKEN = "__type", "AddedToken"

Token: TypeAlias = str | AddedToken  # a string leaves to the tokenizer's class what flags its token has


@dataclass(frozen=True)
class Settings:
    """`options` are those of the tokenizer's class. `named` has the special tokens that have names, None where a file
    says that there is none. `extra` are special tokens without a name, None where no file has such a list; `additional`
    those under the list's old name, where it was not moved to the new one. `added` are tokens by id."""

    options: Mapping[str, Any]
    named: Mapping[str, Token | None]
    extra: tuple[Token, ...] | None
    additional: tuple[Token, ...] | None
    added: Mapping[int, AddedToken]

    def flag(self, name: str, default: bool) -> bool:
        value = self.options.get(name)
        return default if value is None else bool(value)


def read_settings(path: Path, tokenizer_json: Mapping[str, Any] | None) -> Settings:
    """The settings in the directory `path`; `tokenizer_json` is the content of its tokenizer.json. Raises
    CheckpointError."""

    def unreadable(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: its list of added tokens cannot be read ({reason})")

    with library_errors(unreadable):
        try:
            return _read(path, tokenizer_json)
        except (KeyError, AttributeError) as error:
            raise unreadable(repr(error)) from error


def _read(path: Path, tokenizer_json: Mapping[str, Any] | None) -> Settings:
    options = read_optional(path / CONFIG)
    if tokenizer_json is not None:  # which says itself what is put around a text
        options = {name: value for name, value in options.items() if name not in ("add_bos_token", "add_eos_token")}
    if ADDITIONAL in options and not options.get(EXTRA):
        options[EXTRA] = options.pop(ADDITIONAL)
    own = _own_names(options)
    if options.get(DECODER) is not None:
        added = {int(i): _added_token(token) for i, token in options[DECODER].items()}
    else:
        _merge_special_map(options, read_optional(path / SPECIAL_MAP))
        own |= _own_names(options)
        added = _older_added_tokens(path, options)
        added |= {int(token["id"]): _added_token(token) for token in (tokenizer_json or {}).get("added_tokens", ())}
    specific = options.pop(MODEL_SPECIFIC, None) or {}
    own = own or {name: _token(token) for name, token in specific.items()}  # others win over all of these
    by_text = {token.content: token for token in added.values()}
    named = {name: _named(name, options[name], by_text) for name in NAMES if name in options}
    return Settings(
        options=options,
        named=named | own,
        extra=_tokens(options[EXTRA]) if EXTRA in options else None,
        additional=_tokens(options[ADDITIONAL]) if options.get(ADDITIONAL) is not None else None,
        added=added,
    )


def read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _own_names(options: dict[str, Any]) -> dict[str, Token | None]:
    """Takes special tokens with names of the model's own out of `options`, such as image_token."""
    own = {key: value for key, value in options.items() if key.endswith("_token") and key not in NAMES}
    own = {key: value for key, value in own.items() if isinstance(value, str) or _is_typed(value)}
    if isinstance(options.get(EXTRA), Mapping) and not _is_token(options[EXTRA]):
        own |= options.pop(EXTRA)
    for key in own.keys() & options.keys():
        del options[key]
    return {key: _token(value) for key, value in own.items()}


def _merge_special_map(options: dict[str, Any], special: Mapping[str, Any]) -> None:
    """special_tokens_map.json wins over tokenizer_config.json, which it extends by its list of extra tokens."""
    for key, value in special.items():
        if key == EXTRA and isinstance(value, list):
            before = list(options.get(EXTRA) or [])
            options[EXTRA] = [*before, *(token for token in value if token not in before)]
        else:
            options[key] = value | {"special": True, TYPE: TOKEN} if _is_token(value) else value


def _older_added_tokens(path: Path, options: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The tokens of added_tokens.json, special where another file calls them so."""
    special = {text_of_json(options[name]) for name in NAMES if options.get(name)}
    special |= {text_of_json(token) for token in options.get(EXTRA) or ()}
    return {
        int(index): AddedToken(text, normalized=text not in special, special=text in special)
        for text, index in read_optional(path / ADDED).items()
    }


def _named(name: str, value: Any, added: Mapping[str, AddedToken]) -> Token | None:
    if value is None:
        return None
    if not isinstance(value, str) and not _is_token(value):
        raise ValueError(f"{name} is {value!r}, expected a token")
    return added.get(text_of_json(value)) or _token(value)


def _tokens(value: Any) -> tuple[Token, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"the extra special tokens are {type(value).__name__}, expected a list")
    return tuple(_token(token) for token in value)


def _token(value: Any) -> Token:
    return value if isinstance(value, str) else _added_token(value)


def _added_token(value: Any) -> AddedToken:
    if not _is_token(value):
        raise ValueError(f"{value!r} is not a token")
    return AddedToken(value["content"], **{flag: bool(value[flag]) for flag in FLAGS if flag in value})


def _is_token(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and isinstance(value.get("content"), str)


def _is_typed(value: Any) -> bool:
    """Whether transformers makes a token of an object whose key is not one of the usual `NAMES`."""
    return _is_token(value) and value.get(TYPE) == TOKEN


def text_of_json(value: Any) -> str:
    """The text of a token as JSON files have it: a string, or an object with the token's flags."""
    text = token_text(value)
    return str(value) if text is None else text
