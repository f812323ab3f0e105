"""Chat messages to a prompt, with the model's own Jinja template, as Hugging Face's `apply_chat_template` does it.

A template is code from whoever made the model: it runs in a sandbox, sees nothing but the messages, and may do only so
much work.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from edgellm.errors import ChatTemplateError, InputError, nearest
from edgellm.package.json_data import read_json
from edgellm.text.messages import (
    Message,
    apart,
    as_templates_read,
    check_messages,
    cut_at_mark,
    joined,
    marked,
    plain_texts,
    text_parts,
    with_objects,
)
from edgellm.text.sandbox import Sandbox
from edgellm.text.template_files import read_templates, special_tokens
from edgellm.text.tools import Tool, tool_schemas


class ChatTemplate:
    """One or several named templates, and the special tokens that they may write."""

    def __init__(self, templates: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._sources = dict(templates)
        self._special_tokens = dict(special_tokens)
        self._compiled: dict[str, jinja2.Template] = {}

    @classmethod
    def from_package(cls, package: Path) -> ChatTemplate:
        """See `read_templates`. Having none is an error only when it is used."""
        config = read_json(package / "tokenizer_config.json")
        tokens = special_tokens(config, read_json(package / "special_tokens_map.json"))
        return cls(read_templates(package, config), tokens)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def source(self, *, tools: Sequence[Tool] | None = None, template: str | None = None) -> str:
        """The text of the template that `render` takes for these. Raises ChatTemplateError."""
        name = template or self._default_name(tools)
        self._get(name)
        return self._sources[name]

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        **variables: Any,
    ) -> str:
        """The prompt, special tokens included. `tools`: JSON schemas, or functions with docstrings and type hints.
        `template` names one of several; `variables` are the template's own. `continue_final_message`: end inside the
        last message, so that the model continues it; a name says which of its texts, as "reasoning_content".

        Content in parts, [{"type": "text", "text": ...}], is given to the template as it is; where the template takes
        texts alone, as their lines. Content in one piece is one part to a template that takes parts alone. Arguments of
        tool calls that are JSON in a text are given to the template as objects; where it takes texts alone, as they
        are.

        Raises InputError for messages that are none, ChatTemplateError where the template fails, refuses them, or
        leaves the tools out.
        """
        check_messages(messages)
        schemas = None if tools is None else tool_schemas(tools)
        chosen = template or self._default_name(tools)
        compiled = self._get(chosen)
        final, read = "", as_templates_read(messages)
        if continue_final_message:
            name = continue_final_message if isinstance(continue_final_message, str) else "content"
            read, final = marked(read, name, self._sources[chosen])
        given: dict[str, Any] = {
            **self._special_tokens,
            "tools": schemas,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **variables,
        }
        _check_documents(given["documents"])
        text = _rendered(compiled, read, given)
        if schemas:
            _check_tools(text, compiled, read, given)
        return cut_at_mark(text, final) if continue_final_message else text

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


def _check_tools(text: str, template: jinja2.Template, messages: Sequence[Message], given: Mapping[str, Any]) -> None:
    """Raises ChatTemplateError where the prompt is the same without the tools."""
    try:
        without = _rendered(template, messages, {**given, "tools": None})
    except ChatTemplateError:
        return
    if text == without:
        raise ChatTemplateError(
            f"the chat template leaves the tools out of this chat: {len(given['tools'])} were given, and the model "
            "would see none of them; leave tools out, or describe them in a message"
        )


def _rendered(template: jinja2.Template, messages: Sequence[Message], given: Mapping[str, Any]) -> str:
    """Arguments of calls are objects, as most templates expect them; where that fails, or shows Python's objects, the
    JSON texts that they were."""
    read, arguments = with_objects(messages)
    if not arguments:
        return _in_parts(template, messages, given)
    try:
        rendered = _in_parts(template, read, given)
    except ChatTemplateError:
        return _in_parts(template, messages, given)
    if not any(str(each) in rendered for each in arguments if each):
        return rendered
    with contextlib.suppress(ChatTemplateError):
        texts = _in_parts(template, messages, given)
        if any(texts.count(str(each)) < rendered.count(str(each)) for each in arguments if each):
            return texts
    return rendered


def _in_parts(template: jinja2.Template, messages: Sequence[Message], given: Mapping[str, Any]) -> str:
    """Messages in parts are rendered as such; where that fails, or shows the parts instead of their texts, in one
    piece. And the other way round: those in one piece as parts where a template, as of models that read images, loops
    over these and leaves other texts out."""
    parts = [part for message in messages for part in text_parts(message)]
    if not parts:
        return _in_one_piece(template, messages, given)
    try:
        rendered = _render(template, messages, given)
    except ChatTemplateError:
        return _render(template, joined(messages), given)
    return rendered if _shows(rendered, parts) else _render(template, joined(messages), given)


def _in_one_piece(template: jinja2.Template, messages: Sequence[Message], given: Mapping[str, Any]) -> str:
    texts, failed, rendered = plain_texts(messages), None, ""
    try:
        rendered = _render(template, messages, given)
    except ChatTemplateError as error:
        failed = error
    shown = _shown(rendered, texts)
    if shown < len(texts):
        with contextlib.suppress(ChatTemplateError):
            other = _render(template, apart(messages), given)
            if _shown(other, texts) > shown and _shows(other, [{"type": "text", "text": text} for text in texts]):
                return other
    if failed is not None:
        raise failed
    return rendered


def _shown(rendered: str, texts: Sequence[str]) -> int:
    """How many of the texts stand there."""
    return sum(text.strip() in rendered for text in texts)


def _render(template: jinja2.Template, messages: Sequence[Message], given: Mapping[str, Any]) -> str:
    try:
        return template.render({**given, "messages": messages})
    except ChatTemplateError:
        raise
    except Exception as error:  # a template may raise anything: it is a program
        raise ChatTemplateError(f"the chat template failed on these messages: {error}") from error


def _shows(rendered: str, parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a template made texts of these parts: at least one stands there, and none is printed as an object."""
    texts = [part["text"].strip() for part in parts]
    printed = any(printed in rendered for part in parts for printed in _printed(part))
    return not printed and (not any(texts) or any(text and text in rendered for text in texts))


def _printed(part: Mapping[str, Any]) -> list[str]:
    """A part as templates print objects."""
    forms = [str(part)]
    with contextlib.suppress(TypeError, ValueError, RecursionError):  # no JSON: no template prints that
        forms.append(_tojson(part))
    return forms


def _check_documents(documents: object) -> None:
    if documents is not None and not (
        isinstance(documents, Sequence) and all(isinstance(document, Mapping) for document in documents)
    ):
        raise InputError(f"documents is {documents!r}, expected a list of objects with 'title' and 'text'")


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
