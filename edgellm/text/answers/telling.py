"""The events of an answer, and the spaces in it: beside a marker they are dropped, elsewhere they are the model's."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from edgellm.text.answers.calls import Call
from edgellm.text.answers.events import CallArguments, CallBegun, Content, Event, Reasoning

ALPHABET = string.ascii_letters + string.digits


def random_id() -> str:
    return "call_" + "".join(random.choices(ALPHABET, k=24))


def mistral_id() -> str:
    """Its templates refuse any other."""
    return "".join(random.choices(ALPHABET, k=9))


class _Text:
    """Spaces at the end of what was added wait for what follows."""

    def __init__(self, *, after_marker: bool = False) -> None:
        self._held = ""
        self._told = self._marked = False
        self._trims = after_marker

    def add(self, text: str) -> str:
        if self._trims:
            text = text.lstrip()
        if not text:
            return ""
        self._trims = False
        text = self._held + text
        now = text.rstrip()
        self._held = text[len(now) :]
        self._told |= bool(now)
        return now

    def marker(self) -> None:
        """A marker stands here. What was held only comes where more text does."""
        self._held = self._held if self._told else ""
        self._trims = self._marked = True

    def part(self) -> None:
        """A message ends here; the next one begins in a line of its own."""
        self.marker()
        self._held = "\n" if self._told else ""

    def finish(self) -> str:
        return "" if self._marked else self._held


class Telling:
    """Collects events until they are taken."""

    def __init__(self, new_id: Callable[[], str], *, is_thinking: bool) -> None:
        self._events: list[Event] = []
        self._new_id = new_id
        self._calls = 0
        self._content, self._reasoning = _Text(), _Text(after_marker=True)
        self._reasoning.marker()
        if is_thinking:
            self._content.marker()

    def content(self, text: str) -> None:
        if now := self._content.add(text):
            self._events.append(Content(now))

    def reasoning(self, text: str) -> None:
        if now := self._reasoning.add(text):
            self._events.append(Reasoning(now))

    def marker(self) -> None:
        self._content.marker()

    def part(self) -> None:
        self._content.part()
        self._reasoning.part()

    def begin(self, name: str) -> int:
        """A call; gives its index."""
        self._content.marker()
        self._events.append(CallBegun(self._calls, self._new_id(), name))
        self._calls += 1
        return self._calls - 1

    def arguments(self, index: int, text: str) -> None:
        if text:
            self._events.append(CallArguments(index, text))

    def call(self, call: Call) -> None:
        self.arguments(self.begin(call.name), call.arguments)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        if rest := self._content.finish():
            self._events.append(Content(rest))
