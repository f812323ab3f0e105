"""Python functions as tools, beside transformers' `get_json_schema`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import pytest
from transformers.utils import get_json_schema

from edgellm.errors import InputError
from edgellm.text.tools import function_schema, tool_schemas


def current_temperature(location: str, unit: str = "celsius") -> float:
    """
    Get the current temperature at a location.

    Args:
        location: The location to get the temperature for, in the format "City, Country"
        unit: The unit to return the temperature in. (choices: ["celsius", "fahrenheit"])
    Returns:
        The current temperature at the specified location in the specified units, as a float.
    """
    return 22.0


def one_line() -> None:
    """Do nothing."""


def numbers(a: int, b: float, c: bool, d: Any) -> str:
    """Several kinds.

    Args:
        a: First
        b: Second
        c: Third
        d: Fourth
    """
    return ""


def nested(x: list[int], y: dict[str, float], z: tuple[int, str], w: list[dict[str, list[bool]]]) -> list[str]:
    """Containers.

    Args:
        x: Numbers
        y: Numbers by name
        z: A pair
        w: All of it

    Returns:
        Texts
        of several lines.
    """
    return []


def unions(a: int | str, b: int | None, c: list[int] | None = None, d: int | str = 3) -> None:
    """Unions.

    Args:
        a: A number or a text
        b: A number or nothing
        c: Numbers or nothing
        d: A number or a text
    """


def literals(a: Literal["x", "y"], b: Literal[1, 2, 3], c: Literal["a", 1] = "a") -> None:
    """Some values.

    Args:
        a: One of two
        b: One of three
        c: A mixture
    """


def long_texts(first: str, second: int) -> None:
    """A description
    of two lines.

    And of two paragraphs.

    Args:
        first: A description that goes on
            in the next line: with a colon,
            and in the third

        second: Another one, https://example.com/a:b
    Raises:
        ValueError: never
    """


class Thermostat:
    def set_to(self, degrees: float, room: str = "all") -> bool:
        """Set the temperature.

        Args:
            degrees: How warm
            room: Where
        """
        return True

    @classmethod
    def rooms(cls, floor: int) -> list[str]:
        """The rooms of a floor.

        Args:
            floor: Its number
        """
        return []


FUNCTIONS = [current_temperature, one_line, numbers, nested, unions, literals, long_texts]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_schemas_are_those_of_transformers(function: Callable[..., Any]) -> None:
    assert function_schema(function) == get_json_schema(function)


class Unit(Enum):
    CELSIUS = "C"
    KELVIN = "K"


def of_version_5(unit: Unit, many: list | tuple, count: int, either: int | list[str], names: dict) -> Thermostat:
    """What 4.57 does not know, or writes in another way.

    Args:
        unit (Unit): Of temperature
        many: Things
        count (int, optional): How many (choices: [1, 2])
        either: A number or texts
        names: By name

    Returns:
        What has no schema
    """
    return Thermostat()


def test_what_only_transformers_5_reads() -> None:
    parameters = function_schema(of_version_5)["function"]["parameters"]
    assert parameters["properties"] == {
        "unit": {"type": "string", "enum": ["C", "K"], "description": "Of temperature"},
        "many": {"type": "array", "description": "Things"},
        "count": {"type": "integer", "enum": [1, 2], "description": "How many"},
        "either": {
            "anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}],
            "description": "A number or texts",
        },
        "names": {"type": "object", "description": "By name"},
    }
    assert "return" not in function_schema(of_version_5)["function"]
    methods = [function_schema(method)["function"] for method in (Thermostat().set_to, Thermostat.rooms)]
    assert [method["name"] for method in methods] == ["set_to", "rooms"]
    assert list(methods[0]["parameters"]["properties"]) == ["degrees", "room"]


def test_objects_are_tools_as_they_are() -> None:
    bare, whole = {"name": "f"}, {"type": "function", "function": {"name": "g"}}
    assert tool_schemas([bare, whole, one_line]) == [bare, whole, function_schema(one_line)]


def without_hint(x) -> None:  # type: ignore[no-untyped-def]
    """Something.

    Args:
        x: What
    """


def without_description(x: int) -> None:
    """Something."""


def without_docstring(x: int) -> None: ...


def with_a_class(x: Thermostat) -> None:
    """Something.

    Args:
        x: What
    """


def with_a_hint(hint: Any) -> Any:
    def tool(x: Any) -> None:
        """Something.

        Args:
            x: What
        """

    tool.__annotations__["x"] = hint
    return tool


REFUSED = [
    ([with_a_hint("Foo")], r"the tool tool: its type hints cannot be resolved .name 'Foo' is not defined"),
    ([with_a_hint([int])], r"the type hint of 'x' is \[<class 'int'>\], expected"),
    ([with_a_hint(dict[str])], r"the type hint of 'x' is dict\[str\], expected"),
    ([with_a_hint(list[()])], r"the type hint of 'x' is list\[\(\)\], expected"),
    ([7], r"tools\[0\] is a int, expected a function"),
    ({"name": "f"}, "must be a list of functions"),
    ([without_hint], "'x' has no type hint"),
    ([without_description], "does not describe 'x' under \"Args:\""),
    ([without_docstring], "has no docstring"),
    ([with_a_class], "the type hint of 'x' is .*Thermostat.*give the tool's JSON schema"),
]


@pytest.mark.parametrize(("tools", "words"), REFUSED)
def test_tools_that_are_none(tools: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tool_schemas(tools)
