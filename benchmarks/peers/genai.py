"""Worker: onnxruntime-genai. Arguments: model directory made by its builder, threads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from protocol import serve


def load():
    import numpy as np
    import onnxruntime_genai as og

    config = og.Config(sys.argv[1])
    options = {"session_options": {"intra_op_num_threads": int(sys.argv[2])}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    model = og.Model(config)

    def generate(ids: list[int], new_tokens: int) -> Iterator[object]:
        length = len(ids) + new_tokens
        params = og.GeneratorParams(model)
        params.set_search_options(do_sample=False, max_length=length, min_length=length)
        generator = og.Generator(model, params)
        generator.append_tokens(np.array(ids, np.int32))
        for _ in range(new_tokens):
            generator.generate_next_token()
            yield None

    return generate


if __name__ == "__main__":
    serve(load)
