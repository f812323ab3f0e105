"""One checked call: prompts that fit, and how to go on from each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.decoding import Beginning
from edgellm.decoding.shifting import ContextWindow
from edgellm.errors import OptionError
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import ProgressHook


@dataclass(frozen=True)
class Call:
    """A call is run once: its clocks have started.

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
