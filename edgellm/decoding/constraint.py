"""What a sequence may say: the contract of constraints, and what they do to scores.

Ends are not a constraint's business: it says whether the text may end, and the plan's end tokens are then allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edgellm.decoding.processors import MINUS_INFINITY, Scores
from edgellm.types import BoolArray


class ConstraintState(Protocol):
    """Where one sequence is in what it may say."""

    @property
    def may_end(self) -> bool:
        """Whether the text is complete as it is."""

    @property
    def may_go_on(self) -> bool:
        """Whether a token is allowed. Where the text may not end either, it is stuck: no token writes what has to come,
        or that is too much to compute."""

    def allowed(self) -> BoolArray:
        """[vocab], the caller's own: the tokens that may come next, without ends."""

    def forced(self) -> Sequence[int]:
        """The tokens that come next whatever the scores are; none where there is a choice."""

    def accepted(self, tokens: Sequence[int]) -> int:
        """How many of these may come one after the other."""

    def advance(self, token: int) -> None:
        """Go on behind a token that was allowed."""

    def copy(self) -> ConstraintState:
        """One that goes its own way."""


class Constraint(Protocol):
    """What all sequences of a plan may say: some text at least."""

    def begin(self) -> ConstraintState:
        """The state of a new sequence, which is not stuck."""


def constrain(
    scores: Scores, logits: Scores, states: Sequence[ConstraintState | None], eos_token_ids: Sequence[int]
) -> Scores:
    """Exclude what a row's state does not allow; rows without one stay as they are. logits: the scores before other
    processors.

    Where these left nothing that is allowed, the constraint wins: its tokens are scored by their logits.
    """
    result = scores.copy()
    for row, state in enumerate(states):
        if state is not None:
            allowed = state.allowed()
            allowed[list(eos_token_ids)] = state.may_end
            ceiling = (allowed.astype(np.float32) - np.float32(0.5)) * np.float32(
                np.inf
            )  # a quarter of np.where's time
            np.minimum(scores[row], ceiling, out=result[row])
            if result[row].max() == MINUS_INFINITY:
                np.minimum(logits[row], ceiling, out=result[row])
    return result
