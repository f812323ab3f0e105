"""What a caller asks for, before it is looked at, and the checked call that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from edgellm.decoding import Beginning
from edgellm.decoding.shifting import ContextWindow
from edgellm.errors import OptionError
from edgellm.text.answers.choice import is_none
from edgellm.text.tokenizer import Tokenizer
from edgellm.text.tools import Tool
from edgellm.types import ProgressHook

Options = Mapping[str, Any]
T = TypeVar("T")


class Cancel(Protocol):
    """`threading.Event`, or anything else that can be asked whether it is set."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class ChatArguments:
    """How messages become a prompt (see `ChatTemplate.render`), and which tools their answer calls: `tool_choice` and
    `parallel_tool_calls` as OpenAI has them."""

    tools: Sequence[Tool] | None = None
    template: str | None = None
    variables: Mapping[str, Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True

    @property
    def told_tools(self) -> Sequence[Tool] | None:
        """The tools that the model hears of."""
        return None if is_none(self.tool_choice) else self.tools or None


@dataclass(frozen=True)
class Request:
    """What one call asks for. `prompts`: texts or lists of token ids; where there is `chat`, a single list of messages.

    `options` are for all prompts. `own_options`: of each prompt, on top of these; None where it has none of its own.
    """

    prompts: Sequence[Any]
    options: Options
    cancel: Cancel | None = None
    progress: ProgressHook | None = None
    own_options: Sequence[Options] | None = None
    chat: ChatArguments | None = None

    def settled(self, settle: Callable[[Options], T]) -> list[T]:
        """What `settle` makes of the options of each prompt. Raises OptionError, which names the prompt where it has
        options of its own."""
        if self.own_options is None:
            return [settle(self.options)] * len(self.prompts)
        given = self.own_options
        if isinstance(given, Mapping | str) or not isinstance(given, Sequence):
            raise OptionError(f"options is {given!r}, expected a list of dicts, one for each prompt")
        if len(given) != len(self.prompts):
            raise OptionError(f"options has {len(given)} entries, expected one for each of {len(self.prompts)} prompts")
        return [self._settled(settle, index, own) for index, own in enumerate(given)]

    def _settled(self, settle: Callable[[Options], T], index: int, own: Options) -> T:
        if not isinstance(own, Mapping) or not all(isinstance(name, str) for name in own):
            raise OptionError(f"options[{index}] is {own!r}, expected a dict of options by name")
        try:
            return settle({**self.options, **own})
        except OptionError as error:
            raise OptionError(f"options[{index}]: {error}") from error


@dataclass(frozen=True)
class Call:
    """Prompts that fit, and how to go on from each. A call is run once: its clocks have started.

    `dropped`: how many tokens of each prompt were left out. `window`: the context's, where the only sequence may shift.
    """

    beginnings: Sequence[Beginning]
    dropped: Sequence[int]
    window: ContextWindow | None
    tokenizer: Tokenizer | None
    cancelled: Callable[[], bool] | None
    progress: ProgressHook | None

    @property
    def rows(self) -> int:
        """How many rows of a cache it takes."""
        return sum(beginning.plan.options.rows for beginning in self.beginnings)

    def check_streamable(self) -> None:
        """Raises OptionError unless there is one sequence, whose tokens are final at once."""
        (beginning,) = self.beginnings
        options = beginning.plan.options
        if options.rows > 1:
            raise OptionError(
                f"num_beams is {options.num_beams} and num_return_sequences {options.num_return_sequences}, "
                "expected 1: beams are not final before the end, so they cannot be streamed; use generate"
            )
