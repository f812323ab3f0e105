"""Worker: edgellm on an encoder-decoder, through its public interface."""

from __future__ import annotations

import time
from collections.abc import Sequence

import edgellm
from protocol import Arm, Seconds, Settings, serve


def load(settings: Settings) -> Arm:
    model = edgellm.load(settings.model, threads=settings.threads)
    assert isinstance(model, edgellm.EncoderDecoderModel)

    def several(sources: Sequence[list[int]], new_tokens: int, beams: int) -> Seconds:
        model.reset()  # the last source is not kept
        rows = [[i % 30000 for i in ids] for ids in sources]
        start = time.perf_counter()
        found = model.generate(rows, max_new_tokens=new_tokens, eos_token_id=None, num_beams=beams, do_sample=False)
        end = time.perf_counter()
        lengths = {len(result.tokens) for result in found}
        if lengths != {new_tokens}:
            raise AssertionError(f"asked for {new_tokens} tokens, got {lengths}")
        first = found[0].timing.time_to_first_token_s
        return first, end - start - first

    def timed(ids: list[int], new_tokens: int) -> Seconds:
        return several([ids], new_tokens, 1)

    return Arm(timed, several=several)


if __name__ == "__main__":
    serve(load)
