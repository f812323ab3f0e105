"""Worker: onnxruntime-genai, on a directory made by its builder."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime_genai as og

from protocol import Arm, Emitted, Settings, by_token, serve


def load(settings: Settings) -> Arm:
    config = og.Config(settings.model)
    options = {"session_options": {"intra_op_num_threads": settings.threads}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    model = og.Model(config)

    def begun(ids: list[int], length: int) -> og.Generator:
        params = og.GeneratorParams(model)
        params.set_search_options(do_sample=False, max_length=length, min_length=length)
        generator = og.Generator(model, params)
        generator.append_tokens(np.array(ids, np.int32))
        return generator

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        generator = begun(ids, len(ids) + new_tokens)
        for _ in range(new_tokens):
            generator.generate_next_token()
            emitted()

    def logits(ids: list[int]) -> np.ndarray:
        """Logits of all positions: the graphs give the last one only, so the text goes in token by token."""
        generator = begun(ids[:1], len(ids) + 1)
        rows = [generator.get_logits().reshape(-1)]
        for token in ids[1:]:
            generator.append_tokens(np.array([token], np.int32))
            rows.append(generator.get_logits().reshape(-1))
        return np.stack(rows)

    return Arm(by_token(generate), logits)


if __name__ == "__main__":
    serve(load)
