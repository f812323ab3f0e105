"""What a render may still do, and what there is to count.

The unit is one step: an element of a list, TEXT_BYTES of text, a node of the template's syntax each time that it is
passed; calls take several. MAX_STEPS of them take a second or a few.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from jinja2.runtime import Context
from jinja2.utils import Namespace

from edgellm.errors import ChatTemplateError

MAX_STEPS = 4_000_000
TEXT_BYTES = 16  # of text in one step
CALL = 32  # steps of a call; a quarter of them of a filter or a test
ATOMS = frozenset((int, float, bool, type(None)))
FLAT = ATOMS | {str, bytes, range}

Value = Any


class TemplateLimitError(ChatTemplateError):
    """The template asked for more work than it may have."""


class RenderBudget:
    """The steps that a render has left."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TemplateLimitError(
                f"the chat template was stopped: it needs more than {MAX_STEPS:,} steps for these messages; shorten "
                "them, or use a package whose template is not broken"
            )

    def walk(self, value: Value) -> None:
        """Spend what it takes to look at all of a value, however deep."""
        if type(value) in ATOMS:
            self.spend(1)
            return
        waiting = [value]
        while waiting:
            item = waiting.pop()
            kind = type(item)
            if kind is Namespace:
                item = object.__getattribute__(item, "_Namespace__attrs")
            self.spend(shallow(item))
            if kind in (list, tuple):
                waiting.extend(each for each in item if type(each) not in ATOMS)
            elif kind not in FLAT:
                waiting.extend(_parts(item))

    def sequence(self, items: Iterator[Value], *, walks: bool = False) -> Iterator[Value]:
        """The items, each of which counts when it is taken; with `walks`, all that is in it."""
        for item in items:
            self.walk(item) if walks else self.spend(shallow(item))
            yield item


class MeteredContext(Context):
    """The variables of one render, with its budget."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.budget = RenderBudget()

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        context = super().derived(locals)
        assert isinstance(context, MeteredContext)
        context.budget = self.budget
        return context


def shallow(value: Value) -> int:
    """Steps to copy a value, or to go over it once."""
    kind = type(value)
    if kind is str:
        return 1 + sys.getsizeof(value) // TEXT_BYTES
    if kind in (list, tuple, dict):
        return 1 + len(value)
    if kind in ATOMS:
        return 1
    if isinstance(value, str | bytes):
        return 1 + sys.getsizeof(value) // TEXT_BYTES
    if isinstance(value, Mapping | list | tuple | set | frozenset | range | ItemsView | KeysView | ValuesView):
        return 1 + len(value)
    return 1


def _parts(value: Value) -> Iterable[Value]:
    """What lies in a value of any kind."""
    if isinstance(value, Mapping):
        return (*value, *value.values())
    if isinstance(value, list | tuple | set | frozenset | ItemsView | KeysView | ValuesView):
        return value
    return ()


def budget_of(context: Context) -> RenderBudget:
    assert isinstance(context, MeteredContext)
    return context.budget
