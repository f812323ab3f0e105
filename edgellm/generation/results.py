"""What the model gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GeneratedSequence:
    """One generated text. `tokens` are the new ones, an end token included; `text` leaves special tokens out, and is
    empty where the package has no tokenizer.

    `finish_reason`: "eos", "stop_string", "length", "time", "cancelled" or "constraint": the text's constraint lets it
    neither end nor go on: no token of the vocabulary writes what has to come, or that is too much to compute. Without
    an end token, "eos" is where a constraint lets nothing follow. `logprobs`, if asked for, are the model's own, before
    temperature and the like. `score` is beam search's. `complete`: whether a constrained text is what was asked for;
    False where it was cut off before, None without a constraint.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[float, ...] | None = None
    score: float | None = None
    complete: bool | None = None


@dataclass(frozen=True)
class Timing:
    """The times and counts of one call; the prompts of a batch share them.

    `drafted_tokens` are prompt lookup's and those that a constraint forces; `accepted_tokens` of them were right, and
    each saved a run of the model.
    """

    time_to_first_token_s: float
    total_s: float
    prompt_tokens: int
    new_tokens: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prompt_tokens_per_second(self) -> float:
        return self.prompt_tokens / self.time_to_first_token_s if self.time_to_first_token_s else math.nan

    @property
    def tokens_per_second(self) -> float:
        """New tokens after the first step, per second after it; NaN if there was only one step."""
        seconds = self.total_s - self.time_to_first_token_s
        return max(0, self.new_tokens - 1) / seconds if seconds > 0 else math.nan


@dataclass(frozen=True)
class Generation:
    """The answer to one prompt: `num_return_sequences` sequences, best first. `text` and so on are the first one's.

    `prompt_tokens` were read. `dropped_tokens` were left out because the context was full: of the prompt with
    `overflow="truncate"`, of prompt and answer with "shift".
    """

    sequences: tuple[GeneratedSequence, ...]
    prompt_tokens: int
    timing: Timing
    dropped_tokens: int = 0

    @property
    def text(self) -> str:
        return self.sequences[0].text

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.sequences[0].tokens

    @property
    def finish_reason(self) -> str:
        return self.sequences[0].finish_reason

    @property
    def logprobs(self) -> tuple[float, ...] | None:
        return self.sequences[0].logprobs

    @property
    def score(self) -> float | None:
        return self.sequences[0].score

    @property
    def complete(self) -> bool | None:
        return self.sequences[0].complete

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Piece:
    """What one step adds to a streamed text: a token, and the text that is complete with it ("" inside a character).

    The last piece has a `finish_reason`, and `complete` as in `GeneratedSequence`; it has no token if the stream was
    cancelled before the first one. `dropped_tokens`: as in `Generation`, since the piece before. `top_logprobs`: token
    ids and log-probabilities, if asked for.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finish_reason: str | None
    dropped_tokens: int = 0
    complete: bool | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Score:
    """How likely the model finds a text. `logprobs[i]` (natural log) is of `tokens[i + 1]`, given those before."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        return math.fsum(self.logprobs)

    @property
    def perplexity(self) -> float:
        return math.exp(-self.total / len(self.logprobs))


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a loaded model. `provider` is ONNX Runtime's name for what runs it, `kernels` the instruction set of
    edgellm's own that run some of its operators, None where ONNX Runtime's run all."""

    path: Path
    model_type: str
    precision: str
    scheme: str
    target: str
    device: str
    provider: str
    threads: int
    context_length: int
    vocab_size: int
    cache_type: str
    cache_bytes_per_token: int
    package_bytes: int
    onnxruntime_version: str
    kernels: str | None = None
