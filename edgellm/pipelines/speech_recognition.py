"""automatic-speech-recognition: what is said in recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np

from edgellm.errors import InputError, OptionError
from edgellm.models.speech import SpeechModel
from edgellm.pipelines.base import Pipeline
from edgellm.speech.options import WORD

BEAMS = 5  # as transformers' pipeline has them where nobody says


class SpeechRecognition(Pipeline):
    """Gives {"text": text} for a recording, and with `return_timestamps` "chunks", a list of {"timestamp": (start,
    end), "text": text} in seconds: of segments, or with "word" of words.

    A recording is a WAV or FLAC file, an array [samples] at the model's rate, or {"array": samples, "sampling_rate":
    rate}. One of any length is read window by window, as transformers' `generate` does; there are no chunks with
    strides (`chunk_length_s`). There are five beams, unless the package or the caller says otherwise.
    `generate_kwargs` and further keywords are the options of `SpeechModel.transcribe`.
    """

    fits = ("automatic-speech-recognition",)
    batch_size = 1
    model: SpeechModel

    def is_single(self, inputs: Any, options: Mapping[str, Any]) -> bool:
        if isinstance(inputs, str | PathLike | Mapping) or hasattr(inputs, "read"):
            return True
        if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
            return True
        if isinstance(inputs, bytes) or not isinstance(inputs, Sequence):
            raise InputError(f"{self.task} takes a recording or a list of recordings, found {type(inputs).__name__}")
        return False

    def each(
        self,
        items: list[Any],
        *args: Any,
        return_timestamps: bool | Literal["word"] | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        if options.get("chunk_length_s"):
            raise OptionError("chunk_length_s is not there: recordings are read window by window; leave it out")
        options = {**(generate_kwargs or {}), **{n: v for n, v in options.items() if n != "chunk_length_s"}}
        if return_timestamps not in (None, True, False, WORD):
            raise OptionError(
                f"return_timestamps is {return_timestamps!r}, expected True for those of segments, or 'word'"
            )
        if return_timestamps:
            options["return_timestamps"] = return_timestamps
        if self.model.generation_defaults.get("num_beams") is None:
            options.setdefault("num_beams", BEAMS)
        timestamps = options.get("return_timestamps") or self.model.tokens.usual.get("return_timestamps")
        return [self._one(recording, options, timestamps) for recording in items]

    def _one(self, recording: Any, options: Mapping[str, Any], timestamps: Any) -> dict[str, Any]:
        found = self.model.transcribe(recording, **options)
        timed = self.model.timed(found.tokens)
        result: dict[str, Any] = {"text": "".join(text for _, text in timed)}
        if timestamps == WORD:
            result["chunks"] = [{"text": word.text, "timestamp": (word.start, word.end)} for word in found.words]
        elif timestamps:
            result["chunks"] = [{"timestamp": span, "text": text} for span, text in timed]
        return result
