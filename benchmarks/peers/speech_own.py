"""Worker: edgellm on speech, through its public interface."""

from __future__ import annotations

import numpy as np

import edgellm
from protocol import Arm, Settings, serve
from speech_arm import LANGUAGE, NO_TEXT, speech_arm


def load(settings: Settings) -> Arm:
    model = edgellm.load(settings.model, threads=settings.threads)
    assert isinstance(model, edgellm.SpeechModel)

    def write(samples: np.ndarray, new_tokens: int, beams: int) -> int:
        options = {"max_new_tokens": new_tokens, "num_beams": beams, "suppress_tokens": NO_TEXT}
        found = model.transcribe(samples, language=LANGUAGE, task="transcribe", return_timestamps=False, **options)
        return sum(len(segment.tokens) for segment in found.segments)

    return speech_arm(write)


if __name__ == "__main__":
    serve(load)
