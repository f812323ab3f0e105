"""/v1/audio/transcriptions and /v1/audio/translations."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any, Literal, TypeVar

from msgspec import UNSET
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response

from edgellm.audio.samples import samples_of
from edgellm.errors import FieldError, InputError, MissingDependencyError, OptionError, QueueFullError
from edgellm.models.speech import SpeechModel
from edgellm.openai.audio import (
    Duration,
    Recorded,
    Transcript,
    TranscriptEvent,
    TranscriptionRequest,
    TranscriptSegment,
    TranscriptWord,
    TranslationRequest,
    VerboseTranscript,
)
from edgellm.server.answers import unless_gone
from edgellm.server.http import Chunks, Context, answered, streamed
from edgellm.server.pool import Loaded
from edgellm.speech.languages import NAMES
from edgellm.speech.options import WORD
from edgellm.speech.results import Segment, Transcription
from edgellm.speech.subtitles import srt, vtt
from edgellm.types import FloatArray

T = TypeVar("T")
Task = Literal["transcribe", "translate"]
SUBTITLES = {"srt": srt, "vtt": vtt}


@dataclass(frozen=True)
class _Asked:
    """One request's recording and options. `cancelled`: when its client goes or its time is over."""

    model: SpeechModel
    body: Recorded
    task: Task
    samples: FloatArray
    options: dict[str, Any]
    cancelled: Event = field(default_factory=Event)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.model.manifest.model.audio.sampling_rate

    def cancel(self) -> None:
        self.cancelled.set()

    def transcription(self) -> Transcription:
        return self.model.transcribe(self.samples, cancel=self.cancelled, **self.options)

    def segments(self) -> Iterator[Segment]:
        return self.model.stream(self.samples, cancel=self.cancelled, **self.options)


async def transcriptions(http: HttpRequest, body: TranscriptionRequest, context: Context) -> Response:
    if body.timestamp_granularities is not UNSET and body.response_format != "verbose_json":
        raise FieldError(
            "timestamp_granularities are for response_format verbose_json; ask for it, or leave them out",
            "timestamp_granularities[]",
        )
    if body.stream and body.response_format not in ("json", "text"):
        raise FieldError(f"a stream has no response_format {body.response_format}; leave out stream", "stream")
    return await _answer(http, body, context, "transcribe")


async def translations(http: HttpRequest, body: TranslationRequest, context: Context) -> Response:
    return await _answer(http, body, context, "translate")


async def _answer(http: HttpRequest, body: Recorded, context: Context, task: Task) -> Response:
    async with context.pool.use(None if body.model is UNSET else body.model) as loaded:
        model = loaded.hearing()
        if loaded.users > context.settings.max_waiting:
            raise QueueFullError(f"{loaded.users - 1} requests are before this one; try again later")
        asked = await unless_gone(http, _in_turn(loaded, partial(_read, model, body, task, context)))
        if context.settings.max_seconds is not None:
            asyncio.get_running_loop().call_later(context.settings.max_seconds, asked.cancel)
        try:
            if isinstance(body, TranscriptionRequest) and body.stream:
                segments = await unless_gone(http, _in_turn(loaded, asked.segments))
                return streamed(Chunks(_events(segments, loaded), [asked], loaded), named=True)
            found = await unless_gone(http, _in_turn(loaded, asked.transcription))
        except BaseException:
            asked.cancel()  # its thread ends at the next token
            raise
        return _written(asked, found)


async def _in_turn(loaded: Loaded, call: Callable[[], T]) -> T:
    """What a call gives that is not made beside others of the model."""
    async with loaded.turn:
        return await asyncio.to_thread(call)


def _read(model: SpeechModel, body: Recorded, task: Task, context: Context) -> _Asked:
    """Raises FieldError."""
    try:
        rate, longest = model.manifest.model.audio.sampling_rate, context.settings.max_recording_seconds
        samples = samples_of(io.BytesIO(body.file.content), rate, longest=longest)
    except (InputError, MissingDependencyError) as error:
        raise FieldError(str(error), "file") from error
    return _Asked(model, body, task, samples, _options(model, body, task))


def _options(model: SpeechModel, body: Recorded, task: Task) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if task == "translate":
        options["task"] = task
    if isinstance(body, TranscriptionRequest) and body.language is not UNSET:
        options |= _language(model, body.language)
    if body.prompt is not UNSET and body.prompt:
        options["prompt"] = body.prompt
    if body.temperature is not UNSET:
        options["temperature"] = body.temperature
    if body.response_format not in ("json", "text"):
        options["return_timestamps"] = WORD if WORD in _granularities(body) else True
    if body.response_format == "verbose_json" and model.tokens.no_speech is not None:
        # Limits that nothing is beyond have the probability of silence told.
        unlimited = {"no_speech_threshold": 1.0, "logprob_threshold": -math.inf}
        options |= {name: limit for name, limit in unlimited.items() if model.tokens.usual.get(name) is None}
    return options


def _granularities(body: Recorded) -> Sequence[str]:
    """What times are wanted of."""
    given = body.timestamp_granularities if isinstance(body, TranscriptionRequest) else UNSET
    return ("segment",) if given is UNSET else given


def _language(model: SpeechModel, name: str) -> dict[str, Any]:
    """Raises FieldError."""
    if model.tokens.english_only and name.lower() in ("en", "english"):
        return {}
    try:
        model.tokens.language(name)
    except OptionError as error:
        raise FieldError(str(error), "language") from error
    return {"language": name}


def _written(asked: _Asked, found: Transcription) -> Response:
    form = asked.body.response_format
    if form in SUBTITLES:
        return PlainTextResponse(SUBTITLES[form](found.segments))
    text, usage = found.text.strip(), Duration(seconds=asked.duration)
    if form == "text":
        return PlainTextResponse(f"{text}\n")
    if form == "json":
        return answered(Transcript(text=text, usage=usage))
    verbose = VerboseTranscript(
        task=asked.task, language=_named(asked, found), duration=asked.duration, text=text, usage=usage
    )
    wanted = _granularities(asked.body)
    if "segment" in wanted:
        verbose.segments = [_segment(number, segment) for number, segment in enumerate(found.segments)]
    if WORD in wanted:
        verbose.words = [TranscriptWord(word=one.text.strip(), start=one.start, end=one.end) for one in found.words]
    return answered(verbose)


def _named(asked: _Asked, found: Transcription) -> str | None:
    if asked.model.tokens.english_only:
        return "english"
    return NAMES.get(found.language, found.language) if found.language is not None else None


def _segment(number: int, segment: Segment) -> TranscriptSegment:
    written = segment.written
    return TranscriptSegment(
        id=number,
        seek=written.seek,
        start=segment.start,
        end=segment.end,
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=written.temperature,
        avg_logprob=written.logprob,
        compression_ratio=written.compression_ratio,
        no_speech_prob=written.no_speech,
    )


async def _events(segments: Iterator[Segment], loaded: Loaded) -> AsyncIterator[TranscriptEvent]:
    text = ""
    while (segment := await _in_turn(loaded, partial(next, segments, None))) is not None:
        delta = segment.text if text else segment.text.lstrip()
        if delta:
            text += delta
            yield TranscriptEvent(type="transcript.text.delta", delta=delta)
    yield TranscriptEvent(type="transcript.text.done", text=text)
