"""Worker: ik_llama.cpp through ik-llama-cpp-python's own wrappers of its C interface, on a GGUF file.

Its class switches flash attention off on all but a few processors and samples in Python, token by token: here flash
attention is on, and the best token is numpy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ik_llama_cpp import _ctypes_api as api
from ik_llama_cpp._internals import IkContext, IkModel

from protocol import Arm, Emitted, Settings, by_token, serve

PIECE = 512  # tokens of a prompt at a time, its `n_ubatch`; those whose logits are asked for are no more


def load(settings: Settings) -> Arm:
    model = IkModel(settings.model)
    context = IkContext(model, n_ctx=max(settings.context, PIECE), n_threads=settings.threads, flash_attn=True)

    def read(ids: Sequence[int], start: int, *, every: bool = False) -> np.ndarray:
        """[1, vocab] after the last of the tokens, or [tokens, vocab]."""
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, start + i, 1, 0
            batch.logits[i] = every or i == len(ids) - 1
        status = context.decode(batch)
        api.llama_batch_free(batch)
        if status:
            raise RuntimeError(f"llama_decode: {status}")
        wanted = range(len(ids)) if every else [len(ids) - 1]
        return np.stack([np.ctypeslib.as_array(context.get_logits(i), (model.n_vocab,)) for i in wanted])

    def pieces(ids: Sequence[int], **options: Any) -> list[np.ndarray]:
        context.kv_cache_clear()
        return [read(ids[start : start + PIECE], start, **options) for start in range(0, len(ids), PIECE)]

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        logits = pieces(ids)[-1]
        for at in range(len(ids), len(ids) + new_tokens):
            token = int(logits[-1].argmax())
            emitted()
            if at < len(ids) + new_tokens - 1:
                logits = read([token], at)

    return Arm(by_token(generate), lambda ids: np.concatenate(pieces(ids, every=True)))


if __name__ == "__main__":
    serve(load)
