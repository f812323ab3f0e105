"""Worker: CTranslate2 on an encoder-decoder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import ctranslate2

from protocol import Arm, Seconds, Settings, serve


def load(settings: Settings) -> Arm:
    translator = ctranslate2.Translator(settings.model, "cpu", intra_threads=settings.threads)
    vocabulary = json.loads((Path(settings.model) / "shared_vocabulary.json").read_text())

    def several(sources: Sequence[list[int]], new_tokens: int, beams: int) -> Seconds:
        rows = [[vocabulary[i % 30000] for i in ids] for ids in sources]
        start = time.perf_counter()
        found = translator.translate_batch(
            rows,
            beam_size=beams,
            max_decoding_length=new_tokens,
            min_decoding_length=new_tokens,  # the end token is ignored
            max_input_length=0,
        )
        end = time.perf_counter()
        lengths = {len(result.hypotheses[0]) for result in found}
        if lengths != {new_tokens}:
            raise AssertionError(f"asked for {new_tokens} tokens, got {lengths}")
        return 0.0, end - start

    def timed(ids: list[int], new_tokens: int) -> Seconds:
        return several([ids], new_tokens, 1)

    return Arm(timed, several=several)


if __name__ == "__main__":
    serve(load)
