"""gpt-oss answers in messages: `<|channel|>analysis<|message|>...<|end|><|start|>assistant...`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgellm.text.answers.calls import KnownTools
from edgellm.text.answers.events import Event
from edgellm.text.answers.json_calls import named_call
from edgellm.text.answers.scanning import beginning_at_end
from edgellm.text.answers.telling import Telling

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
ENDS = (END, "<|call|>", "<|return|>", START)
MARKERS = frozenset({CHANNEL, MESSAGE, "<|constrain|>", *ENDS})
HEADER_END = re.compile("|".join(map(re.escape, (MESSAGE, *ENDS[:-1]))))
BODY_END = re.compile("|".join(map(re.escape, ENDS)))
RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.-]+)")


def begun_message(prompt: str) -> str | None:
    """The header of a message inside of which a prompt ends, and which the model continues."""
    header, message, _ = prompt.rpartition(START)[2].partition(MESSAGE)
    return header if message and not HEADER_END.search(prompt.rpartition(MESSAGE)[2]) else None


@dataclass
class _Message:
    """A message that is being read. `name`: of the tool that it calls. `index`: of the call, where it is told."""

    is_analysis: bool
    name: str | None
    index: int | None = None
    held: str = ""  # spaces behind the arguments, which end with what follows


class HarmonyParser:
    """Messages of the channel analysis are reasoning, those to a tool that is there are calls, and all others content,
    also calls of other tools and those whose arguments are no JSON object.

    `streams`: arguments are told while they come; they cannot be taken back.
    """

    def __init__(self, tools: KnownTools, telling: Telling, *, prompt: str, streams: bool) -> None:
        self._tools, self._telling, self._streams = tools, telling, streams
        self._message: _Message | None = None
        self._step: Callable[[bool], bool] = self._read_header
        self._buffer = ""
        if (begun := begun_message(prompt)) is not None:
            self._open(begun)

    @property
    def markers(self) -> frozenset[str]:
        return MARKERS

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

    def _read_header(self, last: bool) -> bool:
        text = self._buffer.lstrip()
        begins = (CHANNEL, START, MESSAGE, *ENDS, "to=")
        if not any(begin.startswith(text) or text.startswith(begin) for begin in begins):
            self._open("")  # no header at all
            return True
        found = HEADER_END.search(self._buffer)
        if found is None:
            if last and not any(marker in text for marker in MARKERS):
                self._telling.content(self._buffer)
            return False  # a header that is cut off says nothing
        header, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
        if found[0] == MESSAGE:
            self._telling.part()
            self._open(header)
        return True

    def _open(self, header: str) -> None:
        recipient = RECIPIENT.search(header)
        name = recipient[1] if recipient and recipient[1] in self._tools else None
        channel = header.partition(CHANNEL)[2].lstrip()
        self._message = _Message(channel.startswith("analysis"), name)
        self._step = self._read_body

    def _read_body(self, last: bool) -> bool:
        assert self._message is not None
        found = BODY_END.search(self._buffer)
        stop = found.start() if found else len(self._buffer) if last else beginning_at_end(self._buffer, ENDS)
        self._take(self._message, stop, is_over=found is not None or last)
        if found is None:
            return False
        # What is left of the buffer begins with the marker.
        self._buffer = self._buffer if found[0] == START else self._buffer.removeprefix(found[0])
        self._telling.part()
        self._step = self._read_header
        return True

    def _take(self, message: _Message, stop: int, *, is_over: bool) -> None:
        """Tells the message's text up to `stop`, and takes it out of the buffer; that of a call waits for the end."""
        text = self._buffer[:stop]
        if message.name is None:
            (self._telling.reasoning if message.is_analysis else self._telling.content)(text)
        elif self._streams and (message.index is not None or text.lstrip().startswith("{")):
            self._tell_arguments(message, message.name, text)
        elif is_over:
            self._close_call(message.name, text)
        else:
            return
        self._buffer = self._buffer[stop:]

    def _tell_arguments(self, message: _Message, name: str, text: str) -> None:
        if message.index is None:
            message.index, text = self._telling.begin(name), text.lstrip()
        text = message.held + text
        now = text.rstrip()
        message.held = text[len(now) :]
        self._telling.arguments(message.index, now)

    def _close_call(self, name: str, text: str) -> None:
        try:
            self._telling.call(named_call(name, text.strip() or "{}", self._tools))
        except ValueError:
            self._telling.content(text)
