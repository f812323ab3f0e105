"""The format that a chat template lets a model answer in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgellm.errors import OptionError
from edgellm.text.answers.answer_grammars import harmony_answer, marked_answer
from edgellm.text.answers.calls import known_tools
from edgellm.text.answers.choice import ToolChoice
from edgellm.text.answers.harmony import CHANNEL, MESSAGE, HarmonyParser, begun_message
from edgellm.text.answers.lark import Lark
from edgellm.text.answers.parser import AnswerParser, TaggedParser, Thoughts
from edgellm.text.answers.sections import MARKINGS, Marking, Section
from edgellm.text.answers.telling import Telling, mistral_id, random_id
from edgellm.text.answers.written import Written, bare
from edgellm.text.tools import Tool, tool_schemas

# By what a template says: its name for the end, as some open the reasoning in the prompt only.
THOUGHTS = (
    Thoughts("<think>", "</think>"),
    Thoughts("[THINK]", "[/THINK]"),  # Magistral
    Thoughts("<|channel>thought", "<channel|>"),  # Gemma 4
    Thoughts("<seed:think>", "</seed:think>"),
)

HARMONY_THOUGHTS = Thoughts(f"{CHANNEL}analysis{MESSAGE}", "<|end|>")


@dataclass(frozen=True)
class AnswerFormat:
    """`sections`: how calls are marked. `thoughts`: how reasoning is, None where the model does not think. `is_bare`:
    an answer may be a call without a marker. `is_harmony`: none of these, but messages in channels. `written`: how a
    model writes calls, None where the template has none."""

    sections: tuple[Section, ...] = ()
    thoughts: Thoughts | None = None
    is_bare: bool = False
    is_harmony: bool = False
    written: Written | None = None
    new_id: Callable[[], str] = random_id

    @classmethod
    def of(cls, template: str) -> AnswerFormat:
        """The format of a chat template's source, known by the markers that it mentions. One that mentions tools and
        none of these has bare calls; one without tools has none."""
        if CHANNEL in template and MESSAGE in template:
            return cls(is_harmony=True)
        marking = next((row for row in MARKINGS if row.marker in template), Marking("", (), bare))
        thoughts = next((each for each in THOUGHTS if each.begin in template or each.end in template), None)
        is_bare = "tool" in template and marking.marker in ("", "<|python_tag|>")
        written = replace(marking.written(template), is_bare=is_bare) if is_bare or marking.marker else None
        new_id = mistral_id if marking.marker == "[TOOL_CALLS]" else random_id
        return cls(marking.sections, thoughts, is_bare, written=written, new_id=new_id)

    @property
    def reasoning(self) -> Thoughts | None:
        """What reasoning begins and ends with, None where the model does not think."""
        return HARMONY_THOUGHTS if self.is_harmony else self.thoughts

    def parser(
        self, *, tools: Sequence[Tool] | None = None, prompt: str = "", stream_arguments: bool = False
    ) -> AnswerParser:
        """A parser of one answer. `tools`: those that the template was given; calls of others are content, and so is
        every call where there are none. `prompt`: as it was rendered; the answer may begin inside of reasoning.

        `stream_arguments`: a call is told as soon as its name is known and its arguments begin, where the format is
        JSON. Without it, and in other formats, when it is whole: so a broken one can be content.
        """
        known = known_tools(tool_schemas(tools or ()))
        is_thinking = self._is_thinking(prompt)
        telling = Telling(self.new_id, is_thinking=is_thinking)
        if self.is_harmony:
            return HarmonyParser(known, telling, prompt=prompt, streams=stream_arguments)
        return TaggedParser(
            self.sections, self.thoughts, known, telling,
            is_thinking=is_thinking, is_bare=self.is_bare, streams=stream_arguments,
        )  # fmt: skip

    def grammar(self, choice: ToolChoice, *, prompt: str, special: Mapping[str, int], content: Any = None) -> str:
        """In Lark's notation: the answers that a choice allows, which `parser` reads as such. `prompt`: its end, as it
        was rendered. `special`: the ids of special tokens. `content`: the schema of an answer that is no call, None
        where it may be any text. Raises OptionError for what the format cannot say."""
        lark = Lark(special)
        try:
            lark.late("start", self._answer(lark, choice, prompt, content))
        except RecursionError as error:
            raise OptionError("the schemas of the tools have too many values in one another") from error
        return str(lark)

    def _answer(self, lark: Lark, choice: ToolChoice, prompt: str, content: Any) -> str:
        if self.is_harmony:
            return harmony_answer(lark, choice, is_inside=begun_message(prompt) is not None, content=content)
        if self.written is None:
            raise OptionError("the package's chat template has no tools, so no call can be asked for; leave them out")
        markers, is_thinking = [section.begin for section in self.sections], self._is_thinking(prompt)
        return marked_answer(
            lark, self.written, markers, self.thoughts, choice, is_thinking=is_thinking, content=content
        )

    def _is_thinking(self, prompt: str) -> bool:
        """Whether the prompt has opened the reasoning already."""
        return self.thoughts is not None and prompt.rstrip().endswith(self.thoughts.begin)
