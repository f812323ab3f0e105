"""What a caller says of calls: which tools may be called, whether one has to be, and whether several may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import OptionError, nearest
from edgellm.text.answers.calls import function_of
from edgellm.text.tools import Tool, tool_schemas

WORDS = ("auto", "none", "required")
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class CallSchema:
    """A tool that may be called, and the JSON schema of its arguments. `is_held`: whether they have to be as it says;
    otherwise they are any object."""

    name: str
    parameters: Mapping[str, Any]
    is_held: bool


@dataclass(frozen=True)
class ToolChoice:
    """`calls`: the tools that may be called. `is_forced`: an answer is calls. `is_one`: it has one call at most.
    `is_limited`: there are other tools, too, or may be."""

    calls: tuple[CallSchema, ...]
    is_forced: bool
    is_one: bool
    is_limited: bool = False

    @property
    def is_constraint(self) -> bool:
        """Whether it says anything of the text that a model might not do by itself."""
        limits = self.is_forced or self.is_one or self.is_limited
        return bool(self.calls) and (limits or any(call.is_held for call in self.calls))

    @classmethod
    def read(cls, tools: Sequence[Tool] | None, choice: Any, parallel: bool = True) -> ToolChoice:
        """`choice`: None, "auto", "none", "required", or OpenAI's objects for one tool or for several that are allowed.
        Tools are held to their schemas where they are strict, and always where a call is forced. Raises OptionError."""
        functions = {}
        for index, schema in enumerate(tool_schemas(tools or ())):
            function = function_of(schema)
            name = function.get("name")
            if isinstance(name, str):
                functions[name] = _parameters(function, f"tools[{index}]"), function.get("strict") is True
        mode, names = _read(choice)
        if unknown := [name for name in names or () if name not in functions]:
            raise OptionError(f"tool_choice names {unknown[0]!r}, which is no tool; {nearest(unknown[0], functions)}")
        if mode == "none":
            return cls((), False, not parallel)
        forced, wanted = mode == "required", list(functions) if names is None else names
        if not wanted and (forced or names is not None):
            raise OptionError("tool_choice asks for a call, and there are no tools; give tools")
        calls = (CallSchema(name, functions[name][0], forced or functions[name][1]) for name in wanted)
        return cls(tuple(calls), forced, not parallel, names is not None)


def is_none(choice: Any) -> bool:
    """Whether no tool is to be called, so that a model need not hear of them."""
    return bool(choice == "none")


def _read(choice: Any) -> tuple[str, list[str] | None]:
    """A word, and the tools' names, None for all."""
    match choice:
        case None:
            return "auto", None
        case str() if choice in WORDS:
            return choice, None
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return "required", [name]
        case {"type": "allowed_tools", "allowed_tools": {"mode": ("auto" | "required") as mode, "tools": list(tools)}}:
            return mode, [_name(tool) for tool in tools]
        case {"type": "allowed_tools", "mode": ("auto" | "required") as mode, "tools": list(tools)}:
            return mode, [_name(tool) for tool in tools]
    raise OptionError(
        f'tool_choice is {choice!r}, expected "auto", "none", "required", '
        '{"type": "function", "function": {"name": ...}}, or "allowed_tools" with a mode and tools'
    )


def _name(tool: Any) -> str:
    name = function_of(tool).get("name") if isinstance(tool, Mapping) else None
    if not isinstance(name, str):
        raise OptionError(f"tool_choice allows {tool!r}, expected a function with its name")
    return name


def _parameters(function: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The schema of a function's arguments, which are an object. Raises OptionError."""
    given = function.get("parameters")
    if given is None:
        return NO_PARAMETERS
    kind = given.get("type", "object") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or "object" not in (kind if isinstance(kind, list) else [kind]):
        raise OptionError(f'the parameters of {where} are no JSON schema of an object: {{"type": "object", ...}}')
    return {**given, "type": "object"}
