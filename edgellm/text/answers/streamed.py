"""Calls whose arguments are told while they come."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgellm.text.answers.calls import Call, KnownTools
from edgellm.text.answers.scanning import Ending, beginning_at_end
from edgellm.text.answers.sections import MOST_BETWEEN
from edgellm.text.answers.telling import Telling


class StreamedCalls:
    """The calls of one section. A call is told from where its name is known and its arguments begin: it cannot be taken
    back, so that of a broken one the arguments are what the model wrote, and the rest of its section is dropped."""

    def __init__(self, begun: re.Pattern[str], end: str | None, tools: KnownTools, telling: Telling) -> None:
        self._begun, self._end, self._tools, self._telling = begun, end, tools, telling
        self._told: list[tuple[int, str, int, int]] = []  # index, name, where its arguments begin, how far it was told
        self._at = 0
        self._ending: Ending | None = None  # of the arguments of the last one

    def __bool__(self) -> bool:
        return bool(self._told)

    def read(self, text: str, *, last: bool = False) -> None:
        """`text`: all of the section that has come. `last`: its end has come, too."""
        while self._at >= 0:
            if self._ending is None and not self._begin(text):
                return
            assert self._ending is not None
            found = self._ending.find(text)
            held = len(text) if last or not self._end else beginning_at_end(text, (self._end,))
            self._tell(text, found[0] if found else held)
            if found is None:
                return
            self._ending, self._at = None, found[0]

    def _begin(self, text: str) -> bool:
        found = self._begun.match(text, self._at)
        if found is None:
            self._at = self._at if len(text) - self._at < MOST_BETWEEN else -1
            return False
        name = next(filter(None, found.groups()))
        if name not in self._tools:
            self._at = -1
            return False
        self._told.append((self._telling.begin(name), name, found.end(), found.end()))
        self._ending = Ending(None, ('"',), at=found.end())
        return True

    def _tell(self, text: str, stop: int) -> None:
        index, name, start, told = self._told[-1]
        self._telling.arguments(index, text[told:stop])
        self._told[-1] = index, name, start, max(told, stop)

    def finish(self, calls: Sequence[Call]) -> None:
        """The section is whole: tells the calls that were not."""
        for call in calls[len(self._told) :]:
            self._telling.call(call)
