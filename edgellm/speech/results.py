"""What a transcription gives."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Written:
    """What was written of one window. `tokens`: without an end token. `predicted`: how many of them something was
    predicted from. `logprob`: the mean, of all tokens;
    `compression_ratio`: of the tokens' bytes to these compressed; `no_speech`: the probability that nothing is said,
    where it was asked for. `seek`: the frame where the window begins. `times`: of each token, in
    seconds from there on, where they were asked for."""

    tokens: tuple[int, ...]
    temperature: float
    logprob: float
    compression_ratio: float
    no_speech: float | None = None
    seek: int = 0
    predicted: int = 0
    times: tuple[float, ...] = ()


@dataclass(frozen=True)
class Word:
    """With the space before it, and when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A piece of a recording, from `start` to `end` in seconds. `tokens`: timestamps included. `text` is empty where
    the package has no tokenizer. `times`: when each token is said, in seconds, where those of words were asked for."""

    start: float
    end: float
    tokens: tuple[int, ...]
    written: Written = field(repr=False)
    text: str = ""
    times: tuple[float, ...] = ()


@dataclass(frozen=True)
class Transcription:
    """`language`: a code, such as "en"; None where the model knows one only. `words`: where they were asked for."""

    text: str
    segments: tuple[Segment, ...]
    language: str | None = None
    words: tuple[Word, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for segment in self.segments for token in segment.tokens)

    def __str__(self) -> str:
        return self.text
