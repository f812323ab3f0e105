"""The forms that recordings come in, and what they become, as OpenAI has them. A field that is not here is an error;
`chunking_strategy` is known, and has no effect: windows are what they are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from edgellm.openai.schema import Share


class Upload:
    """A file of a form. No dataclass, whose fields would be those of an object in a schema."""

    def __init__(self, content: bytes) -> None:
        self.content = content


class Recorded(Struct, kw_only=True, forbid_unknown_fields=True):
    """What both addresses take."""

    file: Upload
    model: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: Share | UnsetType = UNSET


class TranslationRequest(Recorded, kw_only=True):
    """Speech of any language as English text."""


class TranscriptionRequest(Recorded, kw_only=True):
    language: str | UnsetType = UNSET
    timestamp_granularities: Annotated[list[Literal["segment", "word"]], Meta(min_length=1)] | UnsetType = field(
        default=UNSET, name="timestamp_granularities[]"
    )
    stream: bool = False
    chunking_strategy: Literal["auto"] | UnsetType = UNSET


class Duration(Struct, kw_only=True):
    type: Literal["duration"] = "duration"
    seconds: float


class Transcript(Struct, kw_only=True):
    text: str
    usage: Duration


class TranscriptSegment(Struct, kw_only=True):
    """`seek`: the frame of the spectrogram where its window begins. `no_speech_prob`: None where nothing says it."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float | None


class TranscriptWord(Struct, kw_only=True):
    word: str
    start: float
    end: float


class VerboseTranscript(Struct, kw_only=True, omit_defaults=True):
    """`language`: its English name; None where nothing says it. `segments`, `words`: where they were asked for."""

    task: Literal["transcribe", "translate"]
    language: str | None
    duration: float
    text: str
    segments: list[TranscriptSegment] | UnsetType = UNSET
    words: list[TranscriptWord] | UnsetType = UNSET
    usage: Duration


class TranscriptEvent(Struct, kw_only=True, omit_defaults=True):
    """Of a stream: the text of a segment, or all of it at the end."""

    type: Literal["transcript.text.delta", "transcript.text.done"]
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
