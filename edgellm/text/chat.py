"""Chat messages to a prompt, with the model's own Jinja template, as Hugging Face's `apply_chat_template` does it.

A template is code from whoever made the model: it runs in a sandbox, sees nothing but the messages, and may do only so
much work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from edgellm.errors import ChatTemplateError, InputError, corrupt, nearest
from edgellm.package.json_data import read_json
from edgellm.text.sandbox import Sandbox
from edgellm.text.tokenizer import check_text

Message = Mapping[str, Any]

MARK = "|the message goes on here| "
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """One or several named templates, and the special tokens that they may write."""

    def __init__(self, templates: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._sources = dict(templates)
        self._special_tokens = dict(special_tokens)
        self._compiled: dict[str, jinja2.Template] = {}

    @classmethod
    def from_package(cls, package: Path) -> ChatTemplate:
        """`chat_template.jinja` wins over tokenizer_config.json. Having neither is an error only when it is used."""
        config = read_json(package / "tokenizer_config.json")
        templates = _templates(config.get("chat_template"))
        file = package / "chat_template.jinja"
        if file.is_file():
            templates["default"] = _read_template(file)
        return cls(templates, _special_tokens(config))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The prompt, special tokens included. `template` names one of several; `variables` are the template's own.
        `continue_final_message`: end inside the last message, so that the model continues it.

        Raises InputError for messages that are none, ChatTemplateError where the template fails or refuses them.
        """
        check_messages(messages)
        compiled = self._get(template or self._default_name(tools))
        if continue_final_message:
            messages = _marked(messages)
        given: dict[str, Any] = {
            **self._special_tokens,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **variables,
        }
        try:
            text = compiled.render(given)
        except ChatTemplateError:
            raise
        except Exception as error:  # a template may raise anything: it is a program
            raise ChatTemplateError(f"the chat template failed on these messages: {error}") from error
        return _cut_at_mark(text) if continue_final_message else text

    def _default_name(self, tools: object) -> str:
        if not self._sources:
            raise ChatTemplateError(
                "this package has no chat template: its model was not made for chats; use generate() instead"
            )
        if tools is not None and "tool_use" in self._sources:
            return "tool_use"
        if "default" not in self._sources:
            names = ", ".join(self._sources)
            raise ChatTemplateError(f"this package has several chat templates; choose one with template=: {names}")
        return "default"

    def _get(self, name: str) -> jinja2.Template:
        if name not in self._sources:
            raise ChatTemplateError(f"no chat template {name!r}; {nearest(name, self._sources)}")
        if name not in self._compiled:
            try:
                self._compiled[name] = _environment().compiled(self._sources[name])
            except ChatTemplateError:
                raise
            except Exception as error:  # Jinja's, and what Python's compiler makes of code that is nested too deep
                raise ChatTemplateError(f"the chat template {name!r} is not valid Jinja: {error}") from error
        return self._compiled[name]


def check_messages(messages: object) -> None:
    """Raises InputError unless `messages` is a non-empty sequence of {"role": str, "content": ...} mappings."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        found = type(messages).__name__
        raise InputError(f'messages must be a list like [{{"role": "user", "content": "Hi"}}], found {found}')
    if not messages:
        raise InputError("messages is empty, expected at least one")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"messages[{i}] is {message!r}, expected an object with the text 'role' and a 'content'")
        if "content" not in message and "tool_calls" not in message:
            raise InputError(f"messages[{i}] has neither 'content' nor 'tool_calls', only {', '.join(message)}")
        if isinstance(message.get("content"), str):
            check_text(message["content"])


def _marked(messages: Sequence[Message]) -> list[Message]:
    """The messages with MARK at the end of the last one's text."""
    *earlier, last = messages
    content = last.get("content")
    if isinstance(content, str):
        return [*earlier, {**last, "content": content + MARK}]
    if isinstance(content, Sequence):
        texts = [i for i, part in enumerate(content) if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
        if texts:
            parts = list(content)
            parts[texts[-1]] = {**parts[texts[-1]], "text": parts[texts[-1]]["text"] + MARK}
            return [*earlier, {**last, "content": parts}]
    raise InputError("there is no text in the last message to continue; leave continue_final_message out")


def _cut_at_mark(text: str) -> str:
    """The text before MARK. Templates that strip messages take the mark's last space with them; the spaces before the
    mark are then those that they would have stripped."""
    before, mark, after = text.rpartition(MARK.strip())
    if not mark:
        raise ChatTemplateError("the chat template leaves the end of the last message out, so it cannot be continued")
    return before if after.startswith(MARK[-1]) else before.rstrip()


def _environment() -> Sandbox:
    environment = Sandbox({"tojson": _tojson})
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as models were trained on it: Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise ChatTemplateError(f"the chat template refuses these messages: {message}")


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise corrupt(f"{path} is not UTF-8 text ({error})") from error


def _templates(value: object) -> dict[str, str]:
    """The templates by name: tokenizer_config.json has one, or a list of {"name": ..., "template": ...}."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        named = [t for t in value if isinstance(t, dict) and {"name", "template"} <= t.keys()]
        return {str(t["name"]): str(t["template"]) for t in named}
    return {}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the special tokens; each is a str or an object with "content"."""
    found = {name: config.get(name) for name in SPECIAL_TOKENS}
    texts = {name: t.get("content") if isinstance(t, dict) else t for name, t in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
