"""Recordings of any length, window by window: the sequential algorithm of Whisper's paper (arXiv 2212.04356, 3.8 and
4.5), as transformers has it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgellm.decoding import Beginning, Decoder, Ends, GenerationOptions, SequencePlan, search
from edgellm.decoding.chain import Processor, ScoredRows
from edgellm.decoding.choice import log_softmax, softmax
from edgellm.decoding.decoder import READING, Reading, Sources
from edgellm.decoding.processors import Scores
from edgellm.errors import OptionError
from edgellm.speech.alignment import token_positions
from edgellm.speech.options import SpeechOptions
from edgellm.speech.results import Segment, Written
from edgellm.speech.rules import keep_timestamps_in_order
from edgellm.speech.segments import Clock, cut
from edgellm.speech.tokens import SpeechTokens
from edgellm.types import FloatArray, Logits, TokenArray

LOW_TEMPERATURE = 0.5  # below which what was written is good enough to go on from
Cancelled = Callable[[], bool]
Attend = Callable[[TokenArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Window:
    """A decoder of targets for one source, which it does not have to be told again."""

    decoder: Decoder
    source: FloatArray

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        return self.decoder.prefill(prompts, [self.source] * len(prompts), reading)

    def decode(self, tokens: TokenArray) -> Logits:
        return self.decoder.decode(tokens)

    def reorder(self, parents: TokenArray) -> None:
        self.decoder.reorder(parents)


@dataclass(frozen=True)
class Transcriber:
    """`prompt`: tokens of earlier text, or of words to expect. `frames`: of a window. `longest`: of a target.
    `heard`: frames of the recording, without what fills the first window up. `attend`: what tells when tokens are said,
    where that is asked for: how much a target's tokens look at a source's positions, [heads, tokens, positions]."""

    decoder: Decoder
    tokens: SpeechTokens
    clock: Clock
    options: SpeechOptions
    generation: GenerationOptions
    ends: Ends
    frames: int
    longest: int
    vocab_size: int
    prompt: tuple[int, ...] = ()
    cancelled: Cancelled | None = None
    heard: int = 0
    attend: Attend | None = None

    def __post_init__(self) -> None:
        if self.options.return_timestamps and self.tokens.no_timestamps is None:
            raise OptionError("return_timestamps is set, and the package names no no_timestamps_token_id; leave it out")
        if self.options.no_speech_threshold is not None and self.tokens.no_speech is None:
            raise OptionError(
                "no_speech_threshold is set, and the package names no no_timestamps_token_id; leave it out"
            )

    def language(self, features: FloatArray) -> int | None:
        """The token of the language that is spoken, where nobody says it."""
        if not self.tokens.finds_language(self.options.language, self.options.task):
            return None
        window = Window(self.decoder, self._cut_out(features, 0, self.frames))
        logits = window.prefill([np.array([self.tokens.start])])[0]
        known = np.array(sorted(self.tokens.languages.values()))
        return int(known[logits[known].argmax()])

    def segments(self, features: FloatArray, language: int | None, *, timestamps: bool) -> Iterator[Segment]:
        """The segments of features [mel_bins, frames of any number], as soon as they are final."""
        begin = self.tokens.beginning(self.options.language, self.options.task, language, timestamps=timestamps)
        start, total = 0, features.shape[1]
        known: list[Sequence[int]] = []  # what was written before
        if self.prompt and self.options.prompt_condition_type == "first-segment":
            known.append(self.prompt[1:] if self.prompt[0] == self.tokens.previous else self.prompt)
        going_on = self.options.condition_on_prev_tokens
        while start < total and not (self.cancelled is not None and self.cancelled()):
            frames = min(self.frames, total - start)
            window = Window(self.decoder, self._cut_out(features, start, frames))
            target = [*self._before(known, going_on=going_on), *begin]
            written = replace(self._written(window, target, begin, timestamps), seek=start)
            going_on = self.options.condition_on_prev_tokens and written.temperature < LOW_TEMPERATURE
            if self._is_silence(written):
                start += frames
                continue
            written = replace(written, times=self._times(window, target, written, self.heard - start))
            found, covered = cut(written, start, frames, self.clock)
            known += [segment.tokens for segment in found]
            start += covered
            yield from found

    def _cut_out(self, features: FloatArray, start: int, frames: int) -> FloatArray:
        """A window of the features, with zeros behind where they end."""
        part = features[:, start : start + frames]
        return np.ascontiguousarray(np.pad(part, [(0, 0), (0, self.frames - part.shape[1])]))

    def _before(self, known: Sequence[Sequence[int]], *, going_on: bool) -> list[int]:
        """What stands before the beginning of a target."""
        if not going_on or not known:
            return list(self.prompt)
        text = [token for tokens in known for token in self._without_second_end(tokens)]
        text = text[-(self.longest // 2 - 1) :]
        if self.prompt and self.options.prompt_condition_type == "all-segments":
            return [*self.prompt, *text]
        previous = self._previous
        return text if previous is None else [previous, *text]

    @property
    def _previous(self) -> int | None:
        suppressed = self.generation.suppress_tokens
        if self.tokens.previous is None and len(suppressed) >= 2:
            return suppressed[-2]
        return self.tokens.previous

    def _without_second_end(self, tokens: Sequence[int]) -> Sequence[int]:
        """Of a segment that ends with two timestamps, the second belongs to what comes next."""
        return tokens[:-1] if len(tokens) > 2 and self.clock.is_time(tokens[-2]) else tokens

    def _written(self, window: Window, target: list[int], begin: Sequence[int], timestamps: bool) -> Written:
        """At the first of the temperatures that gives something good, or the last."""
        silence = self._no_speech(window, target[: len(target) - len(begin) + 1])
        for temperature in self.options.temperature:
            written = replace(self._decoded(window, target, temperature, timestamps), no_speech=silence)
            if self._is_silence(written) or not self._is_poor(written):
                break
        return written

    def _times(self, window: Window, target: Sequence[int], written: Written, heard: int) -> tuple[float, ...]:
        """Of each token behind the target. The last one, which nothing was predicted from, has the time of the one
        before it, as in the reference. `heard`: the window's frames, without what fills it up; beyond its end none."""
        if self.attend is None:
            return ()
        read = [*target, *written.tokens[: written.predicted]]
        weights = self.attend(np.array(read, np.int64), window.source)[:, len(target) :]
        positions = token_positions(weights[..., : heard // self.clock.frames_per_step])
        times = [float(place) * self.clock.seconds_per_step for place in positions] or [0.0]
        return (*times, times[-1])[: len(written.tokens)]

    def _is_poor(self, written: Written) -> bool:
        ratio, logprob = self.options.compression_ratio_threshold, self.options.logprob_threshold
        too_alike = ratio is not None and written.compression_ratio > ratio
        return too_alike or (logprob is not None and written.logprob < logprob)

    def _is_silence(self, written: Written) -> bool:
        most, logprob = self.options.no_speech_threshold, self.options.logprob_threshold
        if most is None or logprob is None or written.no_speech is None:
            return False
        return written.logprob < logprob and written.no_speech > most

    def _no_speech(self, window: Window, start: Sequence[int]) -> float | None:
        """The probability that nothing is said, behind a target's start token; None where nobody asks."""
        if self.options.no_speech_threshold is None:
            return None
        assert self.tokens.no_speech is not None
        return float(softmax(window.prefill([np.array(start)])[0])[self.tokens.no_speech])

    def _decoded(self, window: Window, target: list[int], temperature: float, timestamps: bool) -> Written:
        options = replace(self.generation, do_sample=False)
        if temperature > 0:
            options = replace(options, do_sample=True, temperature=temperature, num_beams=1)
        kept = _KeptScores(temperature or 1.0)
        plan = SequencePlan.create(options, self.ends, before_sampling=self._rules(timestamps), at_the_end=[kept])
        prompt = np.array(target, np.int64)
        beginning = Beginning(prompt, plan, options.limit(len(target), self.longest))
        steps = search(window, [beginning], self.cancelled)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                ((best, *_),) = end.value
                break
        logprob = best.score if best.score is not None else kept.mean(best.tokens)
        ended = best.tokens[-1:] and best.tokens[-1] in self.ends.eos_token_ids
        tokens = best.tokens[:-1] if ended else best.tokens
        ratio = compression_ratio(best.tokens, self.vocab_size)
        return Written(tokens, temperature, logprob, ratio, predicted=len(best.tokens) - 1)

    def _rules(self, timestamps: bool) -> list[Processor]:
        first = self.tokens.first_timestamp
        if not timestamps or first is None:
            return []
        end = self.ends.eos_token_ids[0] if self.ends.eos_token_ids else first
        keep = partial(keep_timestamps_in_order, first=first, end=end, latest=self.tokens.latest)

        def rules(rows: ScoredRows, scores: Scores) -> Scores:
            return keep([ids[length:] for ids, length in zip(rows.ids, rows.prompt_lens, strict=True)], scores)

        return [rules]


class _KeptScores:
    """A processor that changes nothing, and knows the log-probabilities of the tokens that were chosen of its scores,
    of the only row. `temperature`: what scores were divided by."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._last: Scores | None = None
        self._logprobs: list[float] = []

    def __call__(self, rows: ScoredRows, scores: Scores) -> Scores:
        if len(scores) == 1:
            self._take(int(rows.ids[0][-1]))
            self._last = log_softmax(scores[0] * np.float32(self._temperature))
        return scores

    def mean(self, tokens: Sequence[int]) -> float:
        if not tokens:
            return 0.0
        self._take(tokens[-1])
        return math.fsum(self._logprobs) / len(tokens)

    def _take(self, token: int) -> None:
        if self._last is not None:
            self._logprobs.append(float(self._last[token]))
        self._last = None


def compression_ratio(tokens: Sequence[int], vocab_size: int) -> float:
    """Of tokens in as few bytes each as the vocabulary needs."""
    size = int(math.log2(vocab_size) / 8) + 1
    content = b"".join(token.to_bytes(size, "little") for token in tokens)
    return len(content) / len(zlib.compress(content))
