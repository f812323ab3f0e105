"""What Jinja's filters, Python's methods and operators cost, in steps beyond their arguments, and what they may not be
asked for. Nothing is computed here."""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Callable, Mapping, Sequence
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodType,
    WrapperDescriptorType,
)

from edgellm.text.sandbox.budget import TEXT_BYTES, TemplateLimitError, Value, shallow

MAX_NUMBER = 1 << 16  # of arguments that say how long something becomes
MAX_BITS = 4096  # of products and powers
MAX_PADDING = 9_999  # width and precision in format strings
MAX_INDENT = 16


# Methods of Python's own values: those that a template may call, with what they cost beyond the value itself.


def _longer(value: Value, width: Value, *rest: Value) -> int:
    return _length(width)


def _replaced(value: str, old: Value = "", new: Value = "", count: Value = -1, *rest: Value) -> int:
    if not isinstance(old, str) or not isinstance(new, str):
        return 0
    found = value.count(old)
    return (found if not isinstance(count, int) or count < 0 else min(found, count)) * sys.getsizeof(new) // TEXT_BYTES


def _joined(value: str, items: Value = (), *rest: Value) -> int:
    return sys.getsizeof(value) * len(items) // TEXT_BYTES if isinstance(items, Sequence | Mapping) else 0


def _nothing(value: Value, *rest: Value) -> int:
    return 0


def _split(value: str, separator: Value = None, *rest: Value) -> int:
    return value.count(separator) if isinstance(separator, str) and separator else len(value) // 2


_TEXT_METHODS = (
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit islower "
)
_TEXT_METHODS += "isidentifier isnumeric isprintable isspace istitle isupper lower lstrip partition removeprefix "
_TEXT_METHODS += "removesuffix rfind rindex rpartition rstrip startswith strip swapcase title upper encode decode hex"
_SAME = dict.fromkeys(_TEXT_METHODS.split(), _nothing)
_METHODS: Mapping[type, Mapping[str, Callable[..., int]]] = {
    str: _SAME
    | dict.fromkeys(("center", "ljust", "rjust", "zfill"), _longer)
    | {"split": _split, "rsplit": _split, "splitlines": _split, "replace": _replaced, "join": _joined},
    bytes: _SAME,
    dict: dict.fromkeys(("get", "items", "keys", "values", "copy"), _nothing),
    list: dict.fromkeys(("index", "count", "copy"), _nothing),
    tuple: dict.fromkeys(("index", "count"), _nothing),
    int: dict.fromkeys(("bit_length", "is_integer", "conjugate"), _nothing),
    float: dict.fromkeys(("is_integer", "conjugate"), _nothing),
}
_UNBOUND = (MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType)


def _length(value: Value) -> int:
    """What an argument costs that says how long something becomes."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise TemplateLimitError(f"the chat template asks for a length of {value}, at most {MAX_NUMBER} are allowed")
    return abs(value) if isinstance(value, int) else sys.getsizeof(value)


def method_cost(function: Value, arguments: tuple[Value, ...], named: Mapping[str, Value]) -> int | None:
    """What a call of a method of one of Python's own values costs beyond the value and the arguments; None for other
    functions. Raises TemplateLimitError for methods that are not in the table."""
    owner = getattr(function, "__self__", None)
    if isinstance(function, _UNBOUND) or (isinstance(owner, type) and owner in _METHODS):
        raise TemplateLimitError(f"the chat template calls {getattr(function, '__name__', function)!r} of a type")
    if not isinstance(function, BuiltinFunctionType | MethodType):
        return None
    methods = next((table for kind, table in _METHODS.items() if isinstance(owner, kind)), None)
    if methods is None:
        return None
    name = function.__name__
    if name not in methods:
        raise TemplateLimitError(f"the chat template calls {name!r} of a {type(owner).__name__}, which it may not")
    return methods[name](owner, *arguments, *named.values())


# Filters: Jinja's own, but for those that make HTML, and what they cost beyond their arguments.


def _indented(value: Value, width: Value = 4, *rest: Value) -> int:
    lines = value.count("\n") + 1 if isinstance(value, str) else 1
    return lines * (_length(width) // TEXT_BYTES + 1)


def _in_json(value: Value, *rest: Value) -> int:
    for argument in rest:
        if (isinstance(argument, int) and abs(argument) > MAX_INDENT) or (
            isinstance(argument, str) and len(argument) > MAX_INDENT
        ):
            raise TemplateLimitError(f"the chat template indents JSON by more than {MAX_INDENT} characters")
    return 0


def _filled(value: Value, count: Value = 0, *rest: Value) -> int:
    return _length(count) + _listed(value)


def _rounded(value: Value, precision: Value = 0, *rest: Value) -> int:
    if isinstance(precision, int) and abs(precision) > MAX_INDENT:
        raise TemplateLimitError(f"the chat template rounds to {precision} digits, at most {MAX_INDENT} are allowed")
    return 0


def _formatted(value: Value, *rest: Value) -> int:
    check_percent_format(str(value))
    return 0


def _listed(value: Value, *rest: Value) -> int:
    return len(value) if isinstance(value, str) else 0


def _joined_items(value: Value, separator: Value = "", *rest: Value) -> int:
    return _joined(str(separator), value) + _listed(value)


def _summed(value: Value, attribute: Value = None, start: Value = 0, *rest: Value) -> int:
    if not isinstance(start, int | float):
        raise TemplateLimitError("the chat template adds up values that are not numbers")
    return 0


_SHALLOW = (
    "abs attr count d default first float int items last length list random reverse reject rejectattr safe select "
)
_SHALLOW += "selectattr map e escape"
_DEEP = "dictsort groupby max min sort string unique"
_FAST_TEXT = "capitalize lower trim truncate upper"
_SLOW_TEXT = "title urlencode wordcount wordwrap"
_ITERATING = "list map reject rejectattr select selectattr sort unique groupby min max random"
FILTERS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys([*_SHALLOW.split(), *_DEEP.split(), *_FAST_TEXT.split(), *_SLOW_TEXT.split()], _nothing),
    **dict.fromkeys(_ITERATING.split(), _listed),
    "batch": _filled,
    "center": _longer,
    "format": _formatted,
    "indent": _indented,
    "join": _joined_items,
    "replace": lambda value, *rest: _replaced(str(value), *rest),
    "round": _rounded,
    "slice": _filled,
    "sum": _summed,
    "tojson": _in_json,
}
WALKED = frozenset((*_DEEP.split(), "join", "format", "tojson", "sum", "replace"))
SLOW = frozenset((*_SLOW_TEXT.split(), *_DEEP.split(), "indent"))  # take longer than a copy does
SLOWNESS = 16


def operation_cost(operator: str, left: Value, right: Value) -> int:
    """What `left operator right` costs, asked before it is computed. Raises TemplateLimitError for numbers that become
    too large."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (max(right, 1) if operator == "**" else 1) + right.bit_length()
        if operator in ("*", "**") and bits > MAX_BITS:
            raise TemplateLimitError(f"the chat template computes a number of more than {MAX_BITS} bits")
        return 1
    if operator == "*" and isinstance(left, int) != isinstance(right, int):
        number, value = (left, right) if isinstance(left, int) else (right, left)
        return shallow(value) * max(number, 1)
    if operator == "%" and isinstance(left, str):
        check_percent_format(left)
    return shallow(left) + shallow(right)


# Format strings


def fields(text: str) -> int:
    return max(1, text.count("%"))


def check_percent_format(text: str) -> None:
    for widths in re.findall(r"%[^a-zA-Z%]*", text):
        if "*" in widths or any(int(number[:9]) > MAX_PADDING for number in re.findall(r"\d+", widths)):
            raise TemplateLimitError(f"the chat template pads a text to more than {MAX_PADDING} characters")


def check_brace_format(text: str) -> None:
    for _, _, spec, _ in string.Formatter().parse(text):  # Raises ValueError for a text that is no format.
        widths = re.findall(r"\d+", spec or "")
        if "{" in (spec or "") or any(int(number[:9]) > MAX_PADDING for number in widths):
            raise TemplateLimitError(f"the chat template pads a text to more than {MAX_PADDING} characters")
