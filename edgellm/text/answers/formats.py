"""The format that a chat template lets a model answer in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.text.answers.calls import known_tools
from edgellm.text.answers.harmony import CHANNEL, MESSAGE, HarmonyParser
from edgellm.text.answers.parser import AnswerParser, TaggedParser, Thoughts
from edgellm.text.answers.sections import SECTIONS, Section
from edgellm.text.answers.telling import Telling, mistral_id, random_id
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
    an answer may be a call without a marker. `is_harmony`: none of these, but messages in channels."""

    sections: tuple[Section, ...] = ()
    thoughts: Thoughts | None = None
    is_bare: bool = False
    is_harmony: bool = False
    new_id: Callable[[], str] = random_id

    @classmethod
    def of(cls, template: str) -> AnswerFormat:
        """The format of a chat template's source, known by the markers that it mentions. One that mentions tools and
        none of these has bare calls; one without tools has none."""
        if CHANNEL in template and MESSAGE in template:
            return cls(is_harmony=True)
        marker, sections = next((row for row in SECTIONS if row[0] in template), ("", ()))
        thoughts = next((each for each in THOUGHTS if each.begin in template or each.end in template), None)
        is_bare = "tool" in template and marker in ("", "<|python_tag|>")
        return cls(sections, thoughts, is_bare, new_id=mistral_id if marker == "[TOOL_CALLS]" else random_id)

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
        is_thinking = self.thoughts is not None and prompt.rstrip().endswith(self.thoughts.begin)
        telling = Telling(self.new_id, is_thinking=is_thinking)
        if self.is_harmony:
            return HarmonyParser(known, telling, prompt=prompt, streams=stream_arguments)
        return TaggedParser(
            self.sections, self.thoughts, known, telling,
            is_thinking=is_thinking, is_bare=self.is_bare, streams=stream_arguments,
        )  # fmt: skip
