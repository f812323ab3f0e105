"""llguidance's matcher as a constraint: one that is compiled, and a copy of it for each sequence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from edgellm.constraints.vocabulary import Vocabulary
from edgellm.errors import OptionError
from edgellm.types import BoolArray

PROBED = 3  # tokens: what is too much to compute mostly shows at once
NO_TOKEN = "NoExtension"  # how llguidance's error begins where no token can write what has to come


class MatcherState:
    """Implements `decoding.ConstraintState`."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary, at_start: bool = True) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._at_start = at_start
        self._mask: BoolArray | None = None  # of `allowed`, until the next token

    @property
    def may_end(self) -> bool:
        return not self._matcher.is_error() and bool(self._matcher.is_accepting())

    @property
    def may_go_on(self) -> bool:
        return bool(self._allowed().any())

    def allowed(self) -> BoolArray:
        return self._allowed().copy()

    def forced(self) -> Sequence[int]:
        if self._at_start and len(self._vocabulary.first):  # several tokens may write how the text begins
            return []
        return list(takewhile(lambda token: token < self._vocabulary.size, self._matcher.compute_ff_tokens()))

    def accepted(self, tokens: Sequence[int]) -> int:
        return int(self._matcher.validate_tokens(self._ids(tokens)))

    def advance(self, token: int) -> None:
        self._matcher.consume_token(*self._ids([token]))  # an error is kept, and shows in the mask
        self._at_start, self._mask = False, None

    def copy(self) -> MatcherState:
        copy = MatcherState(self._matcher.deep_copy(), self._vocabulary, self._at_start)
        copy._mask = self._mask
        return copy

    @property
    def problem(self) -> str:
        """Why it is stuck, "" where it is not or only no token writes what has to come."""
        problem = reason(self._matcher.get_error())
        return "" if problem.startswith(NO_TOKEN) else problem

    def _ids(self, tokens: Sequence[int]) -> list[int]:
        if not self._at_start or not tokens:
            return list(tokens)
        return [self._vocabulary.id_at_start(tokens[0]), *tokens[1:]]

    def _allowed(self) -> BoolArray:
        if self._mask is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            if self._matcher.is_error():
                bits = np.zeros_like(bits)
            known = np.unpackbits(bits, count=len(self._vocabulary.tokens), bitorder="little").view(np.bool_)
            self._mask = known[: self._vocabulary.size]
            if self._at_start:
                self._mask[self._vocabulary.first] = known[self._vocabulary.first_ids]
        return self._mask


class Grammar:
    """Implements `decoding.Constraint`."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def begin(self) -> MatcherState:
        return MatcherState(self._matcher.deep_copy(), self._vocabulary)

    def probe(self) -> None:
        """Let a text begin. Raises OptionError where none can, or where it is too much to compute."""
        state = self.begin()
        if not state.may_go_on and not state.may_end and not state.problem:
            raise OptionError("it allows no text, or none that tokens of this model write")
        for _ in range(PROBED):
            if state.may_go_on:
                state.advance(int(state.allowed().argmax()))
        if not state.may_go_on and state.problem:
            raise OptionError(state.problem)


def reason(error: str) -> str:
    """What is wrong, without what llguidance says of its insides: the first line, and what a regular expression's
    parser says behind a picture."""
    first, *others = error.partition("\n<")[0].split("\n")
    causes = [line.removeprefix("error: ") for line in others if line.startswith("error: ")]
    return " ".join([first.strip(), *causes])
