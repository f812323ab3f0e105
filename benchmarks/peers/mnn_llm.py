"""Worker: MNN's own LLM engine, on a directory that llmexport made, at the settings that llmexport writes.

Its `generate` stops at an end token: here the best token is numpy's and goes back in, which is what it does itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protocol import Arm, Emitted, Settings, by_token, printing_apart, serve

with printing_apart():
    import MNN.llm


def load(settings: Settings) -> Arm:
    model = MNN.llm.create(str(Path(settings.model) / "config.json"))
    model.set_config({"thread_num": settings.threads})
    model.load()

    def read(ids: Sequence[int]) -> np.ndarray:
        """[1, vocab] after the last of the tokens, or [tokens, vocab] under `all_logits`."""
        return np.array(model.forward(ids).read())[0]

    def begin() -> None:
        model.reset()
        model.generate_init()

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        begin()
        given = ids
        for _ in range(new_tokens):
            given = [int(read(given)[-1].argmax())]
            emitted()

    def logits(ids: list[int]) -> np.ndarray:
        model.set_config({"all_logits": True})
        begin()
        try:
            return read(ids)
        finally:
            model.set_config({"all_logits": False})

    return Arm(by_token(generate), logits)


if __name__ == "__main__":
    serve(load)
