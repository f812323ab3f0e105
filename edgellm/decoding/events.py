"""What a search yields and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Emitted(NamedTuple):
    """One new token of one sequence (greedy search and sampling; beams are not final before the end).

    `number` is the sequence's: the call's prompts have their `num_return_sequences` one after the other.
    `logprob` is the log-softmax of the model's own logits at the token, if `options.logprobs`.
    `finish_reason` is set on a sequence's last token: "eos", "stop_string", "length", "cancelled" or "time".
    """

    number: int
    token: int
    logprob: float | None
    finish_reason: str | None


class Step(NamedTuple):
    """One run of the model. `emitted` is empty for beam search."""

    emitted: tuple[Emitted, ...]


@dataclass(frozen=True)
class Hypothesis:
    """One finished sequence: its new tokens, an end token included, the prompt not.

    `logprobs` are as in `Emitted`. `score`: beam search's length-penalised score, sum / length**length_penalty.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    score: float | None
    finish_reason: str
