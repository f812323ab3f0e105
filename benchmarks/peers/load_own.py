"""Load worker: edgellm's engine for many requests."""

from __future__ import annotations

from typing import Literal

import edgellm
from edgellm.serving import Engine
from load import Asked, Run, by_threads, serve
from protocol import Settings


def load(settings: Settings, kv_cache: Literal["auto", "bfloat16"] = "auto") -> Run:
    model = edgellm.load(settings.model, device="cpu", threads=settings.threads, kv_cache=kv_cache)
    engine, vocabulary = Engine(model), model.manifest.vocab_size

    def answer(asked: Asked) -> None:
        options = {"max_new_tokens": asked.new_tokens, "eos_token_id": [], "do_sample": False}
        for _ in engine.submit([token % vocabulary for token in asked.ids], **options):
            asked.emitted()

    return by_threads(answer)


if __name__ == "__main__":
    serve(load)
