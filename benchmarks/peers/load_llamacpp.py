"""Load worker: llama.cpp's server, with a slot for each client, through xllamacpp's server object."""

from __future__ import annotations

import json

import xllamacpp

from load import Asked, Run, by_threads, serve
from protocol import Settings

SLOTS = 32


def load(settings: Settings) -> Run:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = settings.model, settings.context * SLOTS, SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.cache_ram_mib = 0
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def answer(asked: Asked) -> None:
        """Its stream holds tokens back until they end a character: the server counts them at the end."""

        def heard(chunk: object) -> None:
            data = json.loads(chunk) if isinstance(chunk, str) else chunk
            for one in data if isinstance(data, list) else [data]:
                timings = one.get("timings") if isinstance(one, dict) else None
                asked.emitted(0)
                if timings is not None:
                    asked.count = timings["predicted_n"]

        request = {"prompt": asked.ids, "max_tokens": asked.new_tokens, "ignore_eos": True, "temperature": 0.0}
        server.handle_completions({**request, "cache_prompt": False, "stream": True}, heard)

    return by_threads(answer)


if __name__ == "__main__":
    serve(load)
