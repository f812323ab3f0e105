"""An answer, read piece by piece, in a format that marks its calls and its reasoning."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgellm.text.answers.calls import Call, KnownTools
from edgellm.text.answers.events import Event
from edgellm.text.answers.scanning import beginning_at_end
from edgellm.text.answers.sections import BARE, Section, may_be_bare
from edgellm.text.answers.streamed import StreamedCalls
from edgellm.text.answers.telling import Telling


class AnswerParser(Protocol):
    """Takes the text of one answer in pieces of any size, and gives the same events however it is cut, but for where
    their texts are cut. Nothing in a text is an error: what is no call is content."""

    @property
    def markers(self) -> frozenset[str]:
        """Texts that matter and may be special tokens: what a Detokenizer is to keep."""
        ...

    def add(self, text: str) -> list[Event]: ...

    def finish(self) -> list[Event]:
        """What was held back; call it once, when no more text follows."""
        ...


@dataclass(frozen=True)
class Thoughts:
    """What a model's reasoning stands between, at the beginning of its answer."""

    begin: str
    end: str

    @property
    def markers(self) -> tuple[str, ...]:
        """`begin` may be a token and a word."""
        return tuple(re.findall(r"<[^<>]+>|\[[^\[\]]+\]", self.begin + self.end))


class TaggedParser:
    """`is_thinking`: the prompt has opened the reasoning already. `is_bare`: an answer may be a call without a marker.
    `streams`: see `StreamedCalls`."""

    def __init__(
        self,
        sections: Sequence[Section],
        thoughts: Thoughts | None,
        tools: KnownTools,
        telling: Telling,
        *,
        is_thinking: bool,
        is_bare: bool,
        streams: bool,
    ) -> None:
        self._sections = {section.begin: section for section in sections} if tools else {}
        self._thoughts, self._tools, self._telling = thoughts, tools, telling
        self._is_bare, self._streams = is_bare and bool(tools), streams
        self._begins = re.compile("|".join(map(re.escape, self._sections)) or r"\Z(?!)")
        self._buffer = ""  # of which nothing was told
        self._reading: _Reading | None = None
        self._step: Callable[[bool], bool] = self._think if is_thinking else self._begin

    @property
    def markers(self) -> frozenset[str]:
        thoughts = () if self._thoughts is None else self._thoughts.markers
        return frozenset(thoughts).union(*(section.markers for section in self._sections.values()))

    def add(self, text: str) -> list[Event]:
        self._buffer += text
        while self._step(False):
            pass
        return self._telling.take()

    def finish(self) -> list[Event]:
        while self._step(True):
            pass
        self._telling.finish()
        return self._telling.take()

    # Each step reads what it can of the buffer, and says whether there is another one to do. `last`: nothing follows.

    def _begin(self, last: bool) -> bool:
        text = self._buffer.lstrip()
        if self._thoughts is not None:
            if text.startswith(self._thoughts.begin):
                self._buffer = text.removeprefix(self._thoughts.begin)
                self._telling.marker()
                self._step = self._think
                return True
            if self._thoughts.begin.startswith(text) and not last:
                return False
        self._step = self._open
        return True

    def _think(self, last: bool) -> bool:
        assert self._thoughts is not None
        before, end, after = self._buffer.partition(self._thoughts.end)
        if end:
            self._telling.reasoning(before)
            self._buffer = after
            self._step = self._open
            return True
        self._tell(self._telling.reasoning, (self._thoughts.end,), last)
        return False

    def _open(self, last: bool) -> bool:
        """The beginning of content, where a call may stand that nothing marks."""
        if not self._is_bare:
            self._step = self._read
            return True
        if not self._buffer.strip() and not last:
            return False
        self._step = self._read
        if may_be_bare(self._buffer):
            self._start(BARE)
        return True

    def _read(self, last: bool) -> bool:
        found = self._begins.search(self._buffer)
        if found is None:
            self._tell(self._telling.content, tuple(self._sections), last)
            return False
        self._telling.content(self._buffer[: found.start()])
        self._buffer = self._buffer[found.end() :]
        self._start(self._sections[found[0]])
        return True

    def _start(self, section: Section) -> None:
        streamed = None
        if section.begun is not None and self._streams:
            streamed = StreamedCalls(section.begun, section.end, self._tools, self._telling)
        self._reading = _Reading(section, streamed)
        self._step = self._read_calls

    def _read_calls(self, last: bool) -> bool:
        assert self._reading is not None
        section, streamed = self._reading.section, self._reading.streamed
        fits = may_be_bare(self._buffer) if section is BARE else section.opens.match(self._buffer)
        if not fits:
            self._telling.content(section.begin)
            self._step = self._read
            return True
        found = self._reading.ending.find(self._buffer) if self._reading.ending else None
        if found is None and not last:
            if streamed is not None:
                streamed.read(self._buffer)
            return False
        stop, rest = found or self._end_in_a_string(section, streamed)
        self._close(section, streamed, self._buffer[:stop], self._buffer[:rest])
        self._buffer = self._buffer[rest:]
        self._step = self._read
        return True

    def _end_in_a_string(self, section: Section, streamed: StreamedCalls | None) -> tuple[int, int]:
        """Where a section ends whose end did not come outside of a string, because of a quote that is none."""
        at = self._buffer.find(section.end) if section.end and not streamed else -1
        return (len(self._buffer),) * 2 if at < 0 else (at, at + len(section.end or ""))

    def _close(self, section: Section, streamed: StreamedCalls | None, inside: str, whole: str) -> None:
        calls = self._calls(section, section.begin + whole if section.whole else inside)
        if streamed is not None:
            streamed.read(inside, last=True)
            if streamed:
                streamed.finish(calls)
                return
        for call in calls:
            self._telling.call(call)
        if not calls:
            self._telling.content(section.begin + whole)

    def _calls(self, section: Section, text: str) -> list[Call]:
        try:
            return section.read(text, self._tools)
        except ValueError:
            return []

    def _tell(self, tell: Callable[[str], None], markers: Sequence[str], last: bool) -> None:
        """All but what may be the beginning of a marker."""
        stop = len(self._buffer) if last else beginning_at_end(self._buffer, markers)
        tell(self._buffer[:stop])
        self._buffer = self._buffer[stop:]


class _Reading:
    """The section that is being read."""

    def __init__(self, section: Section, streamed: StreamedCalls | None) -> None:
        self.section, self.streamed = section, streamed
        self.ending = section.ending()
