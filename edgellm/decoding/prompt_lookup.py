"""Speculative decoding by prompt lookup: where the sequence repeats itself, several tokens come out of one run.

A draft is what followed the last tokens where they occurred before, in the prompt or in what was generated (Saxena
2023, "Prompt lookup decoding"); where a constraint leaves no choice, it is what has to come. The model reads the draft
in one run, and each token of it that the search then chooses by itself is a run saved. The search knows nothing of
this: it is given the logits that it would have been given, one position at a time, so that processors, random draws,
stop strings and cancellation are what they are without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edgellm.decoding.decoder import READING, Decoder, Reading, Sources
from edgellm.decoding.sequence import Beginning
from edgellm.types import Logits, TokenArray

DEFAULT_MAX_DRAFT = 10  # tokens
DEFAULT_MAX_NGRAM = 3  # tokens

# What one run costs, in units of a decoding step: 1 without a draft, else OVERHEAD more and DRAFTED more per drafted
# token. Measured with weights that are quantized block by block: 0.12 per token on an AMD EPYC, 0.4 on a Xeon (Sapphire
# Rapids). Drafts are planned with fixed numbers in between, not with measured times: which tokens are read together
# shows in their last bits, so the same call would not always give the same result.
OVERHEAD, DRAFTED = 0.1, 0.25

# How often the next token is what followed last time, by the number of tokens before it that are the same (the last
# entry: that many or more): averages to start from, of greedy and sampled English, Python and JSON.
HIT_RATES = (0.1, 0.3, 0.5, 0.65, 0.75, 0.8, 0.85, 0.95)
LEARNING_RATE = 0.1


class Verifier(Decoder, Protocol):
    """A decoder that can read several tokens at once, and forget them again, while it has a single row."""

    @property
    def lookahead(self) -> int:
        """The most tokens that `verify` may be given now. Below 2 there is only `decode`."""

    def verify(self, tokens: TokenArray) -> Logits:
        """Append tokens [n] to the only row. Returns [n, vocab], what follows each."""

    def forget(self, count: int) -> None:
        """Take the last `count` tokens off the only row."""


class PromptLookup:
    """A decoder in front of another one. Drafts are made while there is one row; several go on one token at a time.

    `rows`: the tokens that the decoder holds of each row, where these have gone on from their prompts already.
    """

    def __init__(
        self, decoder: Verifier, beginnings: Sequence[Beginning], rows: Sequence[TokenArray] | None = None
    ) -> None:
        self._decoder = decoder
        self._beginnings = list(beginnings)  # of each row
        held = [beginning.prompt for beginning in beginnings] if rows is None else rows
        self._rows: list[list[int]] = [tokens.tolist() for tokens in held]  # prompt and new tokens
        self._drafter: RowDrafter | None = None
        self._draft: list[int] = []  # what is left of the last draft, in the decoder already
        self._ahead: Logits = np.empty((0, 0), np.float32)  # [draft + 1, vocab] from the last run on
        self.drafted = 0  # tokens
        self.accepted = 0  # tokens: runs saved

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        return self._decoder.prefill(prompts, sources, reading)

    def reorder(self, parents: TokenArray) -> None:
        self.forget_draft()
        self._drafter = None
        self._decoder.reorder(parents)
        self._rows = [list(self._rows[parent]) for parent in parents.tolist()]
        self._beginnings = [self._beginnings[parent] for parent in parents.tolist()]

    def decode(self, tokens: TokenArray) -> Logits:
        chosen: list[int] = tokens.tolist()
        beginning = self._beginnings[0]
        if len(chosen) > 1 or not beginning.plan.drafts:
            for row, token in zip(self._rows, chosen, strict=True):
                row.append(token)
            return self._decoder.decode(tokens)
        drafter = self._drafter_of_the_row(beginning)
        drafter.append(chosen[0])
        if self._draft and self._draft[0] == chosen[0]:
            self.accepted += 1
            self._draft, self._ahead = self._draft[1:], self._ahead[1:]
            return self._ahead[:1]
        self.forget_draft()
        new = len(drafter.tokens) - len(beginning.prompt)
        room = min(beginning.max_new_tokens - new, self._decoder.lookahead) - 1
        self._draft = drafter.draft(room)
        if not self._draft:
            return self._decoder.decode(tokens)
        self.drafted += len(self._draft)
        self._ahead = self._decoder.verify(np.array([*chosen, *self._draft], np.int64))
        return self._ahead[:1]

    def _drafter_of_the_row(self, beginning: Beginning) -> RowDrafter:
        """The drafter is made after the first token, which therefore comes no later; it takes over the row's tokens."""
        if self._drafter is None:
            self._drafter = RowDrafter(self._rows[0], beginning)
            self._rows[0] = self._drafter.tokens
        return self._drafter

    def forget_draft(self) -> None:
        """Leave in the decoder what the search has chosen, and nothing else."""
        if self._draft:
            self._decoder.forget(len(self._draft))
            self._draft = []


class RowDrafter:
    """Drafts for a sequence that has begun: what its constraint forces, and what was looked up as far as that is
    allowed. `tokens`: prompt and new ones."""

    def __init__(self, tokens: Sequence[int], beginning: Beginning) -> None:
        self._plan, options = beginning.plan, beginning.plan.options
        self._most = options.prompt_lookup_num_tokens or DEFAULT_MAX_DRAFT
        ngram = options.max_matching_ngram_size or DEFAULT_MAX_NGRAM
        self._found = Drafter(tokens, ngram) if self._plan.looks_up else None
        self.tokens = list(tokens) if self._found is None else self._found.tokens
        self._state = self._plan.begin()
        for end in range(len(beginning.prompt), len(tokens)):
            self._plan.advance(self._state, tokens[: end + 1])

    def append(self, token: int) -> None:
        if self._found is None:
            self.tokens.append(token)
        else:
            self._found.append(token)
        self._plan.advance(self._state, self.tokens)

    def draft(self, room: int) -> list[int]:
        """At most so many tokens to come."""
        found = self._found.draft(min(room, self._most)) if self._found is not None else []
        if self._state is None or room < 1:
            return found
        forced = list(self._state.forced())[:room]
        if found[: len(forced)] != forced:
            return forced
        return found[: max(len(forced), self._state.accepted(found))]


class Drafter:
    """A sequence that knows where its last tokens occurred before, and how reliable that was so far.

    The earlier place is found by n-grams of at most `max_ngram` tokens, the longest first, the latest if there are
    several; it is then followed for as long as it foretells the tokens that come. It is asked at every token, whether
    or not the answer is used, so learning what a draft is worth costs no run of the model.
    """

    def __init__(self, tokens: Sequence[int], max_ngram: int) -> None:
        self.tokens: list[int] = []
        self._max_ngram = max_ngram
        self._after: dict[tuple[int, ...], int] = {}  # the place after each n-gram's last occurrence, the end excepted
        self._place = 0  # in `tokens`: what may come next, if `_match`
        self._match = 0  # how many tokens before `_place` are those at the end
        self._hit_rates = list(HIT_RATES)
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        if self._match:
            self._learn(token)
        for n in range(1, min(self._max_ngram, len(self.tokens)) + 1):
            self._after[tuple(self.tokens[-n:])] = len(self.tokens)
        foretold = self._match and self.tokens[self._place] == token
        self.tokens.append(token)
        if foretold:
            self._place += 1
            self._match += 1
        else:
            self._find()

    def draft(self, limit: int) -> list[int]:
        """The tokens to come, as many as make the time per token the least; none where a draft hardly pays."""
        count, chance, expected, best = 0, 1.0, 1.0, 1.0
        limit = min(limit, len(self.tokens) - self._place) if self._match else 0
        for n in range(1, limit + 1):
            chance *= self._hit_rates[_kind(self._match + n - 1)]
            expected += chance
            speed = expected / (1 + OVERHEAD + DRAFTED * n)
            if speed > best:
                count, best = n, speed
        return self.tokens[self._place : self._place + count]

    def _learn(self, token: int) -> None:
        kind = _kind(self._match)
        hit = self.tokens[self._place] == token
        self._hit_rates[kind] += LEARNING_RATE * (hit - self._hit_rates[kind])

    def _find(self) -> None:
        """The place after the latest occurrence of the longest n-gram that ends the sequence."""
        tokens = self.tokens
        self._match = 0
        for n in range(min(self._max_ngram, len(tokens)), 0, -1):
            place = self._after.get(tuple(tokens[-n:]))
            if place is not None:
                self._place, self._match = place, n
                while n < place and n < len(HIT_RATES) and tokens[place - n - 1] == tokens[-n - 1]:
                    n += 1
                self._match = n
                return


def _kind(match: int) -> int:
    """The index in HIT_RATES for a place with `match` tokens before it that are the same."""
    return min(match, len(HIT_RATES)) - 1
