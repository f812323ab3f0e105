"""What a model answered: content, reasoning and tool calls, as they come, in the format of its chat template."""

from edgellm.text.answers.choice import ToolChoice
from edgellm.text.answers.events import (
    AnswerParts,
    CallArguments,
    CallBegun,
    Content,
    Event,
    Reasoning,
    ToolCall,
    answer_of,
)
from edgellm.text.answers.formats import AnswerFormat
from edgellm.text.answers.parser import AnswerParser

__all__ = [
    "AnswerFormat", "AnswerParser", "AnswerParts", "CallArguments", "CallBegun", "Content", "Event", "Reasoning",
    "ToolCall", "ToolChoice", "answer_of",
]  # fmt: skip
