"""A call on its way through an engine: its steps, its clock, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import cast

from edgellm.decoding import Beginning, Decoder, Emitted, Hypothesis, PromptLookup, Step, search
from edgellm.decoding.prompt_lookup import Verifier
from edgellm.decoding.shifting import Shifting
from edgellm.generation.call import Call
from edgellm.generation.results import GeneratedSequence, Generation, Piece, Timing
from edgellm.text.tokenizer import Detokenizer, Tokenizer


class Run:
    """One run of a call, with an engine of its own."""

    def __init__(self, call: Call, engine: Decoder) -> None:
        self._call = call
        self._decoder = engine
        self._shifting: Shifting | None = None
        self._lookup: PromptLookup | None = None
        self._started = time.perf_counter()
        self._first_token: float | None = None
        self._hypotheses: list[list[Hypothesis]] = []
        self._put_in_front(engine)

    def generations(self) -> list[Generation]:
        """The answers to the prompts."""
        for _ in self._steps():
            pass
        timing = self._timing()
        return [
            Generation(sequences(found, beginning, self._call.tokenizer), len(beginning.made_of), timing, dropped)
            for beginning, found, dropped in zip(self._call.beginnings, self._hypotheses, self._dropped, strict=True)
        ]  # fmt: skip

    def pieces(self) -> Iterator[Piece]:
        """The text of the only sequence, step by step."""
        (beginning,) = self._call.beginnings
        detokenizer = Detokenizer(self._call.tokenizer, clean_up=cleaned_up(beginning))
        finished, told = False, 0
        for step in self._steps():
            for emitted in step.emitted:
                finished = emitted.finish_reason is not None
                dropped = self._dropped[0]
                yield piece(emitted, detokenizer, dropped - told)
                told = dropped
        if not finished:
            last = self._hypotheses[0][0]
            yield Piece(
                detokenizer.flush(), (), None, last.finish_reason, self._dropped[0] - told, complete=last.complete
            )

    def _put_in_front(self, engine: Decoder) -> None:
        """What stands in front of the engine, where it can take tokens back and the options of the call ask for it."""
        call = self._call
        if call.window is not None:
            self._decoder = self._shifting = Shifting(cast(Verifier, engine), call.window)
        if any(beginning.drafts for beginning in call.beginnings):
            self._decoder = self._lookup = PromptLookup(cast(Verifier, self._decoder), call.beginnings)

    def _steps(self) -> Iterator[Step]:
        call = self._call
        steps = search(self._decoder, call.beginnings, call.cancelled, call.progress)
        self._started = time.perf_counter()
        try:
            while True:
                step = next(steps)
                self._first_token = self._first_token or time.perf_counter()
                yield step
        except StopIteration as end:
            self._hypotheses = end.value
        finally:
            if self._lookup is not None:
                self._lookup.forget_draft()

    @property
    def _dropped(self) -> list[int]:
        """Tokens that were left out of each prompt and what was made of it, until now."""
        shifted = 0 if self._shifting is None else self._shifting.dropped
        return [dropped + shifted for dropped in self._call.dropped]

    def _timing(self) -> Timing:
        end = time.perf_counter()
        first = (self._first_token or end) - self._started
        prompt_tokens = sum(len(beginning.made_of) for beginning in self._call.beginnings)
        new_tokens = sum(len(hypothesis.tokens) for found in self._hypotheses for hypothesis in found)
        drafts = (self._lookup.drafted, self._lookup.accepted) if self._lookup else (0, 0)
        return Timing(first, end - self._started, prompt_tokens, new_tokens, *drafts)


def sequences(
    found: Sequence[Hypothesis], beginning: Beginning, tokenizer: Tokenizer | None
) -> tuple[GeneratedSequence, ...]:
    """What was found for a prompt, with its text."""

    def with_text(one: Hypothesis) -> GeneratedSequence:
        text = tokenizer.decode(one.tokens, clean_up=cleaned_up(beginning)) if tokenizer else ""
        return GeneratedSequence(text, one.tokens, one.finish_reason, one.logprobs, one.score, complete=one.complete)

    return tuple(map(with_text, found))


def cleaned_up(beginning: Beginning) -> bool | None:
    """Never a constrained text, which is what was asked for as it is; others as the tokenizer says."""
    return None if beginning.plan.constraint is None else False


def piece(emitted: Emitted, detokenizer: Detokenizer, dropped: int) -> Piece:
    """A token with the text that is complete with it."""
    text = detokenizer.add(emitted.token)
    if emitted.finish_reason is not None:
        text += detokenizer.flush()
    logprobs = None if emitted.logprob is None else (emitted.logprob,)
    return Piece(
        text, (emitted.token,), logprobs, emitted.finish_reason, dropped, emitted.complete, emitted.top_logprobs
    )
