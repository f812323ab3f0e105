"""Worker: faster-whisper, which is CTranslate2 with features and windows, without its ways out of bad texts."""

from __future__ import annotations

import numpy as np
from faster_whisper import WhisperModel

from protocol import Arm, Settings, serve
from speech_arm import LANGUAGE, NO_TEXT, speech_arm


def load(settings: Settings) -> Arm:
    model = WhisperModel(settings.model, "cpu", compute_type="int8_float32", cpu_threads=settings.threads)

    def most(new_tokens: int) -> int:
        """What makes CTranslate2 write so many: of all tokens, the prompt's four too, it writes half at most."""
        return 2 * (new_tokens + 1) - 4

    def write(samples: np.ndarray, new_tokens: int, beams: int) -> int:
        segments, _ = model.transcribe(
            samples, language=LANGUAGE, task="transcribe", beam_size=beams, temperature=0.0, without_timestamps=True,
            max_new_tokens=most(new_tokens), suppress_tokens=NO_TEXT, suppress_blank=False,
            condition_on_previous_text=False, compression_ratio_threshold=None, log_prob_threshold=None,
            no_speech_threshold=None,
        )  # fmt: skip
        return sum(len(segment.tokens) for segment in segments)

    return speech_arm(write)


if __name__ == "__main__":
    serve(load)
