"""What a caller asks of a transcription, checked once at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from edgellm.errors import OptionError

WORD = "word"
PromptUse = Literal["first-segment", "all-segments"]


@dataclass(frozen=True)
class SpeechOptions:
    """Names and meanings are those of transformers' Whisper.

    `language`: a name or a code; None: found out by the first half minute. `task`: "transcribe" or "translate", which
    writes English. `return_timestamps`: of segments, with "word" of words, too; None: of segments where the recording
    is too long to do without. `temperature`: one, or several to try in turn where what was written is no good: above 0
    it is sampled. No good is what compresses better than `compression_ratio_threshold`, or has a mean log-probability
    below `logprob_threshold`; below that, and nothing said with more than `no_speech_threshold`, it is left out.
    `condition_on_prev_tokens`: each half minute has what was written before as its beginning. `prompt_condition_type`:
    what the caller's prompt comes before then.
    """

    language: str | None = None
    task: str | None = None
    return_timestamps: bool | Literal["word"] | None = None
    temperature: tuple[float, ...] = (0.0,)
    compression_ratio_threshold: float | None = None
    logprob_threshold: float | None = None
    no_speech_threshold: float | None = None
    condition_on_prev_tokens: bool = False
    prompt_condition_type: PromptUse = "first-segment"

    @classmethod
    def create(cls, usual: Mapping[str, Any], given: Mapping[str, Any]) -> SpeechOptions:
        """`given` on top of what the package's file has. Raises OptionError."""
        names = {each.name for each in fields(cls)} - {"temperature"}  # which the file has for other models
        values = {name: value for name, value in {**usual, **given}.items() if name in names and value is not None}
        if (temperature := given.get("temperature")) is not None:
            several = isinstance(temperature, list | tuple)
            values["temperature"] = tuple(temperature) if several else (temperature,)
        found = cls(**values)
        found._check()
        return found

    def _check(self) -> None:
        for name in ("language", "task"):
            if not isinstance(getattr(self, name), str | None):
                raise OptionError(f"{name} is {getattr(self, name)!r}, expected a name")
        if not isinstance(self.return_timestamps, bool | None) and self.return_timestamps != WORD:
            raise OptionError(f"return_timestamps is {self.return_timestamps!r}, expected True, False or 'word'")
        if not isinstance(self.condition_on_prev_tokens, bool):
            raise OptionError(f"condition_on_prev_tokens is {self.condition_on_prev_tokens!r}, expected True or False")
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            if getattr(self, name) is not None and not _is_number(getattr(self, name)):
                raise OptionError(f"{name} is {getattr(self, name)!r}, expected a number")
        if not self.temperature or not all(_is_number(each) and each >= 0 for each in self.temperature):
            raise OptionError(f"temperature is {list(self.temperature)}, expected numbers from 0")
        if self.no_speech_threshold is not None and self.logprob_threshold is None:
            raise OptionError("no_speech_threshold has no effect without logprob_threshold; give that, too")
        if self.prompt_condition_type not in get_args(PromptUse):
            known = " or ".join(map(repr, get_args(PromptUse)))
            raise OptionError(f"prompt_condition_type is {self.prompt_condition_type!r}, expected {known}")
        if self.prompt_condition_type == "all-segments" and not self.condition_on_prev_tokens:
            raise OptionError("prompt_condition_type 'all-segments' needs condition_on_prev_tokens=True")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and value == value
