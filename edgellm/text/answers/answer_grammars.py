"""Grammars of whole answers: reasoning, then text or calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgellm.errors import OptionError
from edgellm.text.answers.choice import ToolChoice
from edgellm.text.answers.harmony import CHANNEL, END, MARKERS, MESSAGE, START
from edgellm.text.answers.lark import Lark, either, escaped, literal
from edgellm.text.answers.parser import Thoughts
from edgellm.text.answers.sections import BARE_BEGINS
from edgellm.text.answers.written import Written, arguments, plain_name

GAP = r"/\n{1,2}/"  # behind reasoning


def marked_answer(
    lark: Lark,
    written: Written,
    markers: Sequence[str],
    thoughts: Thoughts | None,
    choice: ToolChoice,
    *,
    is_thinking: bool,
    content: Any,
) -> str:
    """An answer whose calls are marked: behind its calls it ends. `markers`: what calls begin with. `content`: the
    schema of a text, None where it is free. Raises OptionError."""
    calls, begin = written.calls(lark, choice), lark.text(written.begin)
    if content is not None and not (begin or choice.is_forced):
        raise OptionError(
            "the calls of this model's format have no marker, so that they cannot be told from a text that a schema is "
            "for; leave out the schema, or strict tools"
        )
    optional = f"({begin})?" if begin and written.is_bare and choice.is_forced else begin
    if choice.is_forced or content is not None:
        gap = f"({GAP})?" if thoughts is not None else ""
        answer = f"{gap} {optional} {calls}"
        if not choice.is_forced:
            answer = either([answer, f"{gap} {lark.json(content)}"])
    else:
        patterns = [*BARE_BEGINS] if written.is_bare else []
        patterns += [rf"\s*{escaped(thoughts.begin)}(?s:.*)"] if thoughts is not None and not is_thinking else []
        answers = [lark.without(markers, patterns)]
        answers += [f"{lark.before(written.begin, markers, patterns)} {calls}"] if begin else []
        answers += [calls] if written.is_bare else []
        answer = either(answers)
    if thoughts is None:
        return answer
    if is_thinking:
        return f"{lark.before(thoughts.end)} {answer}"
    return f"({lark.text(thoughts.begin)} {lark.before(thoughts.end)})? {answer}"


def harmony_answer(lark: Lark, choice: ToolChoice, *, is_inside: bool, content: Any) -> str:
    """An answer in messages, of which a call is the last one. `is_inside`: the prompt has begun a message."""
    markers = sorted(MARKERS)
    channel, message = lark.text(CHANNEL), lark.text(MESSAGE)
    rest = f'{lark.before(END, markers)} {lark.text(START)} "assistant"'
    talk = f'({channel} ("analysis" | "commentary") {message} {rest})*'
    last = []
    for call in choice.calls:
        to, given = literal(f" to=functions.{plain_name(call.name)}"), lark.json(arguments(call))
        kind = f'(" " {lark.text("<|constrain|>")} "json" | " json")?'
        last.append(f'{channel} "commentary" {to} {kind} {message} {given}')
        last.append(f'{to} {channel} "commentary" {kind} {message} {given}')
    if not choice.is_forced:
        text = lark.without(markers)
        final = text if content is None else lark.json(content)
        last.append(f'{channel} "final" {message} {final}')
        if content is None:
            last.append(f'{channel} ("analysis" | "commentary") {message} {text}')
    return f"{rest if is_inside else ''} {talk} {either(last)}"
