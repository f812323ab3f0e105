"""Worker: edgellm, through its public interface."""

from __future__ import annotations

from collections.abc import Sequence

import edgellm
from protocol import Arm, Emitted, Seconds, Settings, by_token, serve


def load(settings: Settings) -> Arm:
    model = edgellm.load(settings.model, threads=settings.threads)

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        model.reset()  # no prefix of the last prompt
        for _ in model.stream(ids, max_new_tokens=new_tokens, eos_token_id=None, do_sample=False):
            emitted()

    def several(prompts: Sequence[list[int]], new_tokens: int, beams: int) -> Seconds:
        model.reset()
        options = {"max_new_tokens": new_tokens, "eos_token_id": None, "do_sample": False, "num_beams": beams}
        timing = model.generate(list(prompts), **options)[0].timing
        return timing.time_to_first_token_s, timing.total_s - timing.time_to_first_token_s

    return Arm(by_token(generate), model.logits, several)


if __name__ == "__main__":
    serve(load)
