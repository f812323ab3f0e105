"""What a search yields and returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Emitted:
    """One new token of one sequence (greedy search and sampling; beams are not final before the end).

    `row` is the sequence's number: prompt number x num_return_sequences + its number within the prompt.
    `logprob` is the log-softmax of the model's own logits at the token, if `options.logprobs`.
    `finish_reason` is set on a sequence's last token: "eos", "stop_string", "length", "cancelled" or "time".
    """

    row: int
    token: int
    logprob: float | None
    finish_reason: str | None


@dataclass(frozen=True)
class Step:
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
