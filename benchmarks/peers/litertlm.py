"""Worker: LiteRT-LM, on a file that litert-torch made with the numbers tokenizer of conversion.py.

It takes text alone: each token id is a word of its own, and each new token a piece of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import litert_lm

from protocol import Arm, Emitted, Settings, by_token, serve


def load(settings: Settings) -> Arm:
    backend = litert_lm.Backend.CPU(thread_count=settings.threads)
    engine = litert_lm.Engine(settings.model, backend, max_num_tokens=settings.context)

    @contextmanager
    def session(new_tokens: int) -> Iterator[litert_lm.Session]:
        greedy = litert_lm.SamplerConfig(top_k=1)
        options = {"apply_prompt_template": False, "sampler_config": greedy, "max_output_tokens": new_tokens}
        with engine.create_session(**options) as opened:
            yield opened

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        words = " ".join(map(str, ids))
        with session(new_tokens) as opened:
            opened.run_prefill([words])
            for _ in opened.run_decode_async():
                emitted()

    return Arm(by_token(generate))


if __name__ == "__main__":
    serve(load)
