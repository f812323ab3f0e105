"""Tokens, decoded text and chats of a package beside those of transformers."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from edgellm.errors import EdgellmError
from edgellm.loading import AnyModel
from edgellm.models.decoder import Model
from edgellm.text.tokenizer import Tokenizer
from edgellm_export.witness.findings import Check
from edgellm_export.witness.questions import CHATS, PAIRS

SHOWN = 16  # tokens, or characters on each side of a difference


def text_checks(model: AnyModel, found: Mapping[str, Any]) -> Iterator[Check]:
    """`found`: what reading.py says of the checkpoint's tokenizer."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        yield Check(
            "tokens", len(found["texts"]), "texts", ("the package has no tokenizer, and transformers finds one",)
        )
        return
    yield _tokens(tokenizer, found)
    yield _decoded(tokenizer, found["sequences"], found["decoded"], skip=True)
    yield _decoded(tokenizer, found["sequences"], found["kept"], skip=False)
    if "pairs" in found:
        yield _pairs(tokenizer, found)
    if isinstance(model, Model) and (model.chat_template.names or not all(map(_refused, found["chats"]))):
        yield _chats(model, found)


def _tokens(tokenizer: Tokenizer, found: Mapping[str, Any]) -> Check:
    different = []
    for text, ids in zip(found["texts"], found["ids"], strict=True):
        ours = tokenizer.encode(text).tolist()
        if ours != ids:
            different.append(f"{text!r} is {_short(ours)} here and {_short(ids)} there")
    return Check("tokens", len(found["texts"]), "texts", tuple(different))


def _decoded(tokenizer: Tokenizer, sequences: list[list[int]], texts: list[str], *, skip: bool) -> Check:
    different = []
    for ids, text in zip(sequences, texts, strict=True):
        ours = tokenizer.decode(ids, skip_special_tokens=skip)
        if ours != text:
            different.append(f"{_short(ids)} is {ours!r} here and {text!r} there")
    return Check("text" if skip else "text with special tokens", len(sequences), "sequences", tuple(different))


def _pairs(tokenizer: Tokenizer, found: Mapping[str, Any]) -> Check:
    different = []
    for pair, (ids, types) in zip(PAIRS, found["pairs"], strict=True):
        ours = tokenizer.encoding(*pair)
        if ours.ids.tolist() != ids:
            different.append(f"{pair} is {_short(ours.ids.tolist())} here and {_short(ids)} there")
        elif ours.type_ids.tolist() != types:
            different.append(f"{pair} has the types {_short(ours.type_ids.tolist())} here and {_short(types)} there")
    return Check("pairs", len(found["pairs"]), "pairs", tuple(different))


def _chats(model: Model, found: Mapping[str, Any]) -> Check:
    different = []
    for chat, theirs in zip(CHATS, found["chats"], strict=True):
        ours = _rendered(model, chat)
        if (_refused(ours) and _refused(theirs)) or ours == theirs or _leaves_tools_out(model, chat, ours, theirs):
            continue
        what = f"{len(chat['conversation'])} messages{' with tools' * bool(chat['tools'])}"
        either = _refused(ours) or _refused(theirs)
        told = f"{_told(ours)} here, {_told(theirs)} there" if either else _first_difference(str(ours), str(theirs))
        different.append(f"{what}: {told}")
    return Check("chat template", len(found["chats"]), "chats", tuple(different))


def _rendered(model: Model, chat: Mapping[str, Any]) -> str | dict[str, str]:
    given = {name: value for name, value in chat.items() if name != "conversation"}
    try:
        return model.chat_template.render(chat["conversation"], **given)
    except EdgellmError as error:
        return {"error": str(error)}


def _leaves_tools_out(model: Model, chat: Mapping[str, Any], ours: object, theirs: object) -> bool:
    """Whether the template does not read its tools, which is an error here, and none in transformers."""
    return bool(chat["tools"]) and _refused(ours) and theirs == _rendered(model, {**chat, "tools": None})


def _refused(rendered: object) -> bool:
    return isinstance(rendered, dict)


def _told(rendered: Any) -> str:
    return f"refused ({rendered['error']})" if _refused(rendered) else "rendered"


def _first_difference(ours: str, theirs: str) -> str:
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    place = next((a for tag, a, *_ in matcher.get_opcodes() if tag != "equal"), 0)
    part = slice(max(0, place - SHOWN), place + SHOWN)
    return f"...{ours[part]!r} here and ...{theirs[part]!r} there"


def _short(ids: Any) -> str:
    if isinstance(ids, dict):
        return str(ids["error"])
    return f"[{', '.join(map(str, ids[:SHOWN]))}{', ...' if len(ids) > SHOWN else ''}]"
