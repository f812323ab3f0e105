"""One call of `generate` or `stream`, whatever the kind of model: its search, its clock, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from edgellm.decoding import (
    Decoder,
    Emitted,
    GenerationOptions,
    Hypothesis,
    Logits,
    PromptLookup,
    Step,
    Stopping,
    search,
)
from edgellm.decoding.prompt_lookup import Verifier
from edgellm.decoding.shifting import Shifting, Window
from edgellm.errors import OptionError
from edgellm.generation.results import GeneratedSequence, Generation, ModelInfo, Piece, Timing
from edgellm.ort import session as ort
from edgellm.package.manifest import EncoderFacts, Manifest
from edgellm.text.tokenizer import Detokenizer, Tokenizer, stop_string_matcher
from edgellm.types import IntArray, ProgressHook


class Cancel(Protocol):
    """`threading.Event`, or anything else that can be asked whether it is set."""

    def is_set(self) -> bool: ...


class _Interrupted(Exception):
    """Ends a prefill."""


class Run:
    """One search: its steps, its clock and, at the end, its hypotheses. `dropped`: tokens of each prompt that were left
    out before it began."""

    def __init__(self, stopping: Stopping, progress: ProgressHook | None, dropped: Sequence[int] = ()) -> None:
        self._stopping = stopping
        self._progress = progress
        self._started = time.perf_counter()
        self._first_token: float | None = None
        self._dropped = dropped
        self._shifting: Shifting | None = None
        self._lookup: PromptLookup | None = None
        self.hypotheses: list[list[Hypothesis]] = []

    def steps(
        self,
        engine: Decoder,
        prompts: Sequence[IntArray],
        options: GenerationOptions,
        *,
        verifier: Verifier | None = None,
        window: Window | None = None,
        sources: Sequence[IntArray] | None = None,
    ) -> Generator[Step, None, None]:
        """`verifier`: the engine, where it can look tokens up in the prompt and the options say so. `window`: of the
        context, where it may shift. `sources`: of an encoder-decoder, one for each prompt."""
        self._started = time.perf_counter()
        if verifier is not None and window is not None:
            verifier = self._shifting = Shifting(verifier, window)
        if verifier is not None and options.prompt_lookup and options.num_beams == 1:
            self._lookup = PromptLookup(verifier, self._stopping.max_new_tokens, options)
        decoder = self._lookup or self._shifting or engine
        steps = search(decoder, prompts, options, self._stopping, sources, self._on_prefill)
        try:
            self.hypotheses = yield from self._timed(steps)
        except _Interrupted as interruption:
            empty = Hypothesis((), () if options.logprobs else None, None, str(interruption))
            self.hypotheses = [[empty] for _ in prompts]
        finally:
            if self._lookup is not None:
                self._lookup.forget_draft()

    def dropped_tokens(self) -> list[int]:
        """Of each prompt and what was made of it, until now."""
        shifted = 0 if self._shifting is None else self._shifting.dropped
        return [dropped + shifted for dropped in self._dropped]

    def timing(self, prompts: Sequence[IntArray]) -> Timing:
        end = time.perf_counter()
        new_tokens = sum(len(h.tokens) for hypotheses in self.hypotheses for h in hypotheses)
        first = (self._first_token or end) - self._started
        drafts = (self._lookup.drafted, self._lookup.accepted) if self._lookup else (0, 0)
        return Timing(first, end - self._started, sum(map(len, prompts)), new_tokens, *drafts)

    def _timed(
        self, steps: Generator[Step, None, list[list[Hypothesis]]]
    ) -> Generator[Step, None, list[list[Hypothesis]]]:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return list(end.value)
            self._first_token = self._first_token or time.perf_counter()
            yield step

    def _on_prefill(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)
        reason = self._stopping.interruption() if done < total else None
        if reason is not None:
            raise _Interrupted(reason)


def stopping(
    manifest: Manifest,
    tokenizer: Tokenizer | None,
    lengths: Sequence[int],
    options: GenerationOptions,
    cancel: Cancel | None,
    room: int | None,
) -> Stopping:
    """When each of the prompts of these `lengths` in tokens has been continued far enough. `room`: the most tokens that
    prompt and answer have together, None where there is no limit to them."""
    tokens = manifest.tokens
    return Stopping(
        eos_token_ids=tokens.eos if options.eos_token_id is None else options.eos_token_id,
        pad_token_id=tokens.pad if options.pad_token_id is None else options.pad_token_id,
        matches_stop_string=stop_string_matcher(tokenizer, options.stop_strings),
        cancelled=None if cancel is None else cancel.is_set,
        deadline=None if options.max_time is None else time.monotonic() + options.max_time,
        max_new_tokens=tuple(options.limit(length, room) for length in lengths),
    )


def generations(run: Run, prompts: Sequence[IntArray], tokenizer: Tokenizer | None) -> list[Generation]:
    """What a finished run found for each of the prompts."""
    timing = run.timing(prompts)
    dropped = run.dropped_tokens() or [0] * len(prompts)

    def sequence(h: Hypothesis) -> GeneratedSequence:
        text = tokenizer.decode(h.tokens) if tokenizer else ""
        return GeneratedSequence(text, h.tokens, h.finish_reason, h.logprobs, h.score)

    return [
        Generation(tuple(map(sequence, hypotheses)), len(prompt), timing, left_out)
        for prompt, hypotheses, left_out in zip(prompts, run.hypotheses, dropped, strict=True)
    ]


def check_streamable(options: GenerationOptions) -> None:
    """Raises OptionError."""
    if options.num_beams > 1 or options.num_return_sequences > 1:
        raise OptionError(
            f"num_beams is {options.num_beams} and num_return_sequences {options.num_return_sequences}, "
            "expected 1: beams are not final before the end, so they cannot be streamed; use generate"
        )


def pieces(run: Run, steps: Iterator[Step], tokenizer: Tokenizer | None) -> Iterator[Piece]:
    """The text of a search with one row, step by step."""
    detokenizer = Detokenizer(tokenizer)
    finished, told = False, 0
    for step in steps:
        for emitted in step.emitted:
            finished = emitted.finish_reason is not None
            dropped = sum(run.dropped_tokens())
            yield _piece(emitted, detokenizer, dropped - told)
            told = dropped
    if not finished:
        dropped = sum(run.dropped_tokens())
        yield Piece(detokenizer.flush(), (), None, run.hypotheses[0][0].finish_reason, dropped - told)


def _piece(emitted: Emitted, detokenizer: Detokenizer, dropped: int) -> Piece:
    text = detokenizer.add(emitted.token)
    if emitted.finish_reason is not None:
        text += detokenizer.flush()
    logprobs = None if emitted.logprob is None else (emitted.logprob,)
    return Piece(text, (emitted.token,), logprobs, emitted.finish_reason, dropped)


def logprobs_of(logits: Logits, tokens: IntArray) -> list[float]:
    """The log-softmax of each row at its token. logits: [length, vocab], tokens: [length]. Row by row: more arrays of
    the logits' size would be most of a call's memory."""
    return [_logprob(row, token) for row, token in zip(logits, tokens.tolist(), strict=True)]


def _logprob(logits: Logits, token: int) -> float:
    largest = logits.max()
    return float(logits[token] - (np.log(np.exp(logits - largest).sum(dtype=np.float64)) + largest))


def model_info(package: Path, manifest: Manifest, session: ort.Session) -> ModelInfo:
    """Of a model; `session` is what its tokens or numbers come from."""
    cache = None if isinstance(manifest.model, EncoderFacts) else manifest.model.cache
    return ModelInfo(
        path=package,
        model_type=manifest.model_type,
        precision=manifest.weights.precision,
        scheme=manifest.weights.scheme,
        target=manifest.target,
        device=session.device,
        provider=session.provider,
        threads=session.threads,
        context_length=manifest.context_length,
        vocab_size=manifest.vocab_size,
        cache_type="none" if cache is None else cache.dtype,
        cache_bytes_per_token=0 if cache is None else cache.bytes_per_token(),
        package_bytes=sum(entry.size for entry in manifest.files.values()),
        onnxruntime_version=ort.version(),
    )
