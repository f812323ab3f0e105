"""How the calls of each family are marked: a table, of which its chat template says the row."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgellm.text.answers import written
from edgellm.text.answers.calls import Reader
from edgellm.text.answers.json_calls import json_calls, mistral_calls
from edgellm.text.answers.literal_calls import PYTHON_QUOTES, gemma_calls, python_calls
from edgellm.text.answers.scanning import Ending
from edgellm.text.answers.tagged_calls import deepseek_calls, tagged_calls
from edgellm.text.answers.written import Written

_S = r"\s{0,9}"
_EXTRA = rf'"(?:id|type)"{_S}:{_S}"[^"\\]{{0,99}}"'
_NAME = r"(?P<name>[\w.-]{1,128})"
# From behind one call to the arguments of the next, of calls that can be told while they come. What it matches is no
# longer than MOST_BETWEEN characters.
JSON_BEGUN = re.compile(
    rf"(?:{_S},{_S}{_EXTRA}){{0,2}}[\s\[\]}},;]{{0,40}}\{{{_S}(?:{_EXTRA}{_S},{_S}){{0,2}}"
    rf'"name"{_S}:{_S}"{_NAME}"{_S},{_S}"(?:arguments|parameters)"{_S}:{_S}(?=\{{)'
)
MISTRAL_BEGUN = re.compile(
    rf"{_S}{_NAME}{_S}(?:\[CALL_ID\]\w{{0,99}}{_S})?(?:\[ARGS\])?{_S}(?=\{{)"
    f"|{JSON_BEGUN.pattern.replace('<name>', '<json_name>')}"
)
MOST_BETWEEN = 1000

JSON_OPENS = re.compile(r"\s*(?:[{\[]|\Z)")
NAMED_OPENS = re.compile(r"\s{0,99}[\w.-]{0,128}\s{0,99}(?:[{\[]|\Z)")
PYTHON_OPENS = re.compile(r"\s*(?:[{\[\w]|\Z)")
GEMMA_OPENS = re.compile(r"\s*(?:call:|c?a?l?l?\Z)")
TAG_OPENS = re.compile(r"\s*(?:<|\Z)")


@dataclass(frozen=True)
class Section:
    """Calls between two markers. `end`: "" for the end of the answer, None where the brackets of the call close.

    `opens` matches what calls begin with, however little of it has come; anything else is content at once. `quotes`:
    what strings stand between, in which no end is looked for. `begun`: what stands before arguments that can be told
    while they come; without it, calls are told when they are whole. `inner`: other markers, which are no brackets.
    `whole`: the outer markers are a part of the call.
    """

    begin: str
    end: str | None
    read: Reader
    opens: re.Pattern[str] = JSON_OPENS
    quotes: tuple[str, ...] = ('"',)
    begun: re.Pattern[str] | None = None
    inner: tuple[str, ...] = ()
    whole: bool = False

    def ending(self) -> Ending | None:
        if self.end == "":
            return None
        return Ending(self.end, self.quotes, self.inner if self.end is None else ())

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.begin, self.end, *self.inner)))


def _json(begin: str, end: str) -> tuple[Section]:
    return (Section(begin, end, json_calls, begun=JSON_BEGUN),)


def _python(begin: str, end: str) -> tuple[Section]:
    return (Section(begin, end, python_calls, PYTHON_OPENS, PYTHON_QUOTES, JSON_BEGUN),)


LFM2 = _python("<|tool_call_start|>", "<|tool_call_end|>")
TAGGED = (
    Section("<tool_call>", "</tool_call>", tagged_calls, TAG_OPENS, ()),
    Section("<function=", "</function>", tagged_calls, re.compile(""), (), whole=True),  # also without the outer tags
)
MISTRAL = (
    Section("[TOOL_CALLS]", None, mistral_calls, NAMED_OPENS, begun=MISTRAL_BEGUN, inner=("[CALL_ID]", "[ARGS]")),
)
DEEPSEEK = (
    Section(
        "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", deepseek_calls, TAG_OPENS, (),
        inner=("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Marking:
    """`marker`: what a template says. `sections`: how calls are read. `written`: how they are written, by its
    source."""

    marker: str
    sections: tuple[Section, ...]
    written: Callable[[str], Written]


def _marking(
    marker: str, sections: tuple[Section, ...], written: Callable[[str, str], Callable[[str], Written]]
) -> Marking:
    """Of sections whose begin and end are those of what is written."""
    return Marking(marker, sections, written(sections[0].begin, sections[0].end or ""))


def _gemma(begin: str, end: str, quote: str) -> Marking:
    quotes = (quote, *PYTHON_QUOTES)
    section = Section(begin, end, gemma_calls(quote), GEMMA_OPENS, quotes, inner=(quote,))
    return Marking(begin, (section,), written.gemma(begin, end, quote))


# The first row whose marker is there counts.
MARKINGS = (
    Marking("<function=", TAGGED, written.tagged),  # Qwen3-Coder, Qwen3.5
    _marking("<tool_call>", _json("<tool_call>", "</tool_call>"), written.json_lines),  # Hermes, Qwen 2.5 and 3
    Marking("[TOOL_CALLS]", MISTRAL, written.mistral),
    _marking("<|tool_call_start|>", LFM2, written.python_list),
    _marking("<|tool_list_start|>", LFM2, written.python_list),  # its templates that write no calls
    _gemma("<|tool_call>", "<tool_call|>", '<|"|>'),  # Gemma 4
    _gemma("<start_function_call>", "<end_function_call>", "<escape>"),  # FunctionGemma
    Marking("<｜tool▁calls▁begin｜>", DEEPSEEK, written.deepseek),
    _marking("<|tool_call|>", _json("<|tool_call|>", "<|/tool_call|>"), written.json_list),  # Phi-4-mini, Granite
    _marking("<TOOLCALL>", _json("<TOOLCALL>", "</TOOLCALL>"), written.json_list),  # Nemotron
    Marking("<|python_tag|>", _python("<|python_tag|>", ""), written.bare),  # Llama 3
    _marking("tool_code", _python("```tool_code", "```"), written.python_lines),  # Gemma 3, as its guide has it
)


KEYS = ("name", "type", "id", "function", "arguments", "parameters")
_OBJECT = re.compile(r'(?:\[\s*)?\{\s*"(\w*)("?)')
_PYTHON = re.compile(r"\[\s*([\w.-]*)(\(?)")
_SHORT = re.compile(r"\[?\s*(?:\{\s*)?\Z")


def may_be_bare(text: str) -> bool:
    """Whether an answer that begins so may be nothing but calls, without a marker."""
    text = text.lstrip()
    if _SHORT.match(text):
        return True
    if found := _OBJECT.match(text):
        word, closed = found.groups()
        return word in KEYS if closed else found.end() == len(text) and any(key.startswith(word) for key in KEYS)
    found = _PYTHON.match(text)
    return found is not None and bool(found[1]) and (bool(found[2]) or found.end() == len(text))


BARE = Section("", "", python_calls)
# Of texts that `may_be_bare` and are longer than what that waits for, as llguidance reads them.
BARE_BEGINS = (rf'\s*(\[\s*)?\{{\s*"({"|".join(KEYS)})"(?s:.*)', r"\s*\[\s*[\w.-]+\((?s:.*)")
