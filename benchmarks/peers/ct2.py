"""Worker: CTranslate2, on a directory that its converter made."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import numpy as np

from protocol import Arm, Emitted, Settings, by_token, serve


def load(settings: Settings) -> Arm:
    generator = ctranslate2.Generator(settings.model, "cpu", intra_threads=settings.threads)
    vocabulary = json.loads((Path(settings.model) / "vocabulary.json").read_text())

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        generator.generate_batch(
            [[vocabulary[i] for i in ids]],
            max_length=new_tokens,
            min_length=new_tokens,  # the end token is ignored
            include_prompt_in_result=False,  # the prompt in one go
            callback=lambda _: emitted(),
        )

    def logits(ids: list[int]) -> np.ndarray:
        return np.array(generator.forward_batch([ids]))[0]

    return Arm(by_token(generate), logits)


if __name__ == "__main__":
    serve(load)
