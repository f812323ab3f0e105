"""How the models of each family write calls, as grammars: a table beside that of what is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.errors import OptionError
from edgellm.text.answers.choice import ANY_OBJECT, CallSchema, ToolChoice
from edgellm.text.answers.lark import Lark, either, literal
from edgellm.text.answers.literal_grammars import PYTHON, Style, Values, members, raw_text
from edgellm.text.answers.schemas import Schema, kinds, resolved, said

PLAIN_NAME = re.compile(r"[\w.-]+")
TAG_NAME = re.compile(r"[^\s>](?:[^>\n]*[^\s>])?")
GENERIC_TAG_NAME = "/[A-Za-z_][A-Za-z0-9_]{0,63}/"
# What would end a value between tags, or all of them, before it ends.
TAGS = ("</function>", "</tool_call>", "<parameter=")
TAG_END = "\n</parameter>"
LINE, EMPTY = "\n", '""'
NOT_INSIDE = (r"<\/parameter>(?s:.*)", r"(?s:.*)[^\n]<\/parameter>(?s:.*)")


@dataclass(frozen=True)
class Written:
    """`one`: an expression for a call. `begin` and `end`: of a section of calls, in which `opens` and `closes` stand
    around them. `between`: several calls of one section; None: each has a section of its own, with `apart` between
    those. `is_bare`: the section's begin may be left out."""

    one: Callable[[Lark, CallSchema], str]
    begin: str = ""
    end: str = ""
    opens: str = ""
    closes: str = ""
    between: str | None = None
    apart: str = ""
    is_bare: bool = False

    def calls(self, lark: Lark, choice: ToolChoice) -> str:
        """Behind the begin of the first section: all calls of an answer, and nothing else. Raises OptionError for
        arguments that cannot be held to their schema in this format."""
        call = lark.rule(either([self._one(lark, each) for each in choice.calls]))
        if choice.is_one:
            return self._section(lark, call)
        if self.between is not None:
            return self._section(lark, f"{call} ({lark.text(self.between)} {call})*")
        again = f"{lark.text(self.apart)} {lark.text(self.begin)} {self._section(lark, call)}"
        return f"{self._section(lark, call)} ({again})*"

    def _section(self, lark: Lark, calls: str) -> str:
        return f"{lark.text(self.opens)} {calls} {lark.text(self.closes)} {lark.text(self.end)}"

    def _one(self, lark: Lark, call: CallSchema) -> str:
        try:
            return lark.rule(self.one(lark, call))
        except OptionError as error:
            raise OptionError(
                f"the arguments of the tool {call.name!r} cannot be held to their schema in the format of this model's "
                f"calls: {error}; change the schema, or leave out strict and a forced tool_choice"
            ) from error


def json_call(key: str) -> Callable[[Lark, CallSchema], str]:
    """{"name": ..., "arguments": {...}}, or another key."""

    def one(lark: Lark, call: CallSchema) -> str:
        begin = f'{{"name": {literal(call.name)}, "{key}": '
        return f'{literal(begin)} {lark.json(arguments(call))} "}}"'

    return one


def named_json(before: str, after: str = "", end: str = "") -> Callable[[Lark, CallSchema], str]:
    """A name between two texts, and the arguments in JSON."""

    def one(lark: Lark, call: CallSchema) -> str:
        name = literal(plain_name(call.name))
        return f"{lark.text(before)} {name} {lark.text(after)} {lark.json(arguments(call))} {lark.text(end)}"

    return one


def arguments(call: CallSchema) -> Schema:
    return call.parameters if call.is_held else ANY_OBJECT


def python_call(lark: Lark, call: CallSchema) -> str:
    """`f(a=1)`."""
    if call.name == "print" or call.name.endswith(".call"):
        raise OptionError("its name means something else there")
    return f'{literal(plain_name(call.name) + "(")} {_arguments(lark, call, PYTHON, "=")} ")"'


def gemma_call(quote: str) -> Callable[[Lark, CallSchema], str]:
    """`call:name{key:value}`."""
    style = Style(quote=quote, comma=",", pair=":", bare_keys=True)

    def one(lark: Lark, call: CallSchema) -> str:
        return f'{literal(f"call:{plain_name(call.name)}{{")} {_arguments(lark, call, style, ":")} "}}"'

    return one


def _arguments(lark: Lark, call: CallSchema, style: Style, pair: str) -> str:
    values = Values(lark, call.parameters, style)
    if not call.is_held:
        return values.any_items(pair)
    return values.items(call.parameters, lambda name: literal(style.argument(name) + pair))


def tagged_call(lark: Lark, call: CallSchema) -> str:
    """<function=name>, and each argument between tags of its own."""
    begin = literal(f"<function={_tag(call.name)}>\n")
    if not call.is_held:
        any_text = lark.before(TAG_END, TAGS, NOT_INSIDE)
        return f'{begin} ("<parameter=" {GENERIC_TAG_NAME} ">\\n" {any_text} "\\n")* "</function>"'
    values = Values(lark, call.parameters, Style(never=(*TAGS, TAG_END.strip())))

    def argument(name: str, schema: Any) -> str:
        return f"{literal(f'<parameter={_tag(name)}>' + LINE)} {_tagged_value(values, schema)} {literal(LINE)}"

    return f'{begin} {members(lark, call.parameters, argument, "")} "</function>"'


def _tagged_value(values: Values, schema: Any) -> str:
    """A value and its end tag: strings as they are, others in JSON. Raises OptionError."""
    schema = resolved(schema, values.root) if "$ref" in said(_mapping(schema)) else schema
    words, types = said(_mapping(schema)), kinds(schema, values.root)
    if types and types != {"string"}:
        return f"{values.value(schema)} {literal(TAG_END)}"
    listed = words.get("enum", [words["const"]] if "const" in words else None)
    if listed is None or words.keys() - {"type", "enum", "const"}:
        return raw_text(values.lark, words, TAG_END, TAGS, NOT_INSIDE)
    if wrong := [one for one in listed if any(tag in str(one) for tag in (*TAGS, TAG_END.strip()))]:
        raise OptionError(f"a value of its own that holds a tag: {wrong[0]!r}")
    return f"{either([literal(one) if one else EMPTY for one in listed])} {literal(TAG_END)}"


def _tag(name: str) -> str:
    if not TAG_NAME.fullmatch(name):
        raise OptionError(f"the name {name!r}, which is none for a tag")
    return name


def plain_name(name: str) -> str:
    if not PLAIN_NAME.fullmatch(name):
        raise OptionError(f"its name {name!r} has more than letters, digits, _, . and -")
    return name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# Which of these a template wants, beside its marker, is in its source.


def json_lines(begin: str, end: str) -> Callable[[str], Written]:
    """A call in each section, in a line of its own."""
    return lambda template: Written(json_call(_key(template)), begin, end, "\n", "\n", apart="\n")


def json_list(begin: str, end: str) -> Callable[[str], Written]:
    """All calls in a list. Some templates of one marker have no end."""
    return lambda template: Written(
        json_call(_key(template)), begin, end if end in template else "", "[", "]", between=", "
    )


def python_list(begin: str, end: str) -> Callable[[str], Written]:
    return lambda _: Written(python_call, begin, end, "[", "]", between=", ")


def python_lines(begin: str, end: str) -> Callable[[str], Written]:
    return lambda _: Written(python_call, begin, end, "\n", "\n", between="\n")


def gemma(begin: str, end: str, quote: str) -> Callable[[str], Written]:
    return lambda _: Written(gemma_call(quote), begin, end)


def tagged(template: str) -> Written:
    return Written(tagged_call, "<tool_call>", "</tool_call>", "\n", "\n", apart="\n")


def mistral(template: str) -> Written:
    if "[ARGS]" in template:
        return Written(named_json("", "[ARGS]"), "[TOOL_CALLS]")
    return json_list("[TOOL_CALLS]", "")(template)


def deepseek(template: str) -> Written:
    begin, middle, end = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
    one = named_json(begin, middle, end)
    if "```json" in template:
        one = named_json(f"{begin}function{middle}", "\n```json\n", f"\n```{end}")
    return Written(one, "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", between="\n" if "```json" in template else "")


def bare(template: str) -> Written:
    """Without a marker, or behind Llama's."""
    begin = "<|python_tag|>" if "<|python_tag|>" in template else ""
    return Written(json_call(_key(template)), begin, between="; " if begin else "\n")


def _key(template: str) -> str:
    """What arguments are called."""
    quoted = ('arguments"', 'arguments\\"', "arguments'")
    return "parameters" if 'parameters"' in template and not any(name in template for name in quoted) else "arguments"
