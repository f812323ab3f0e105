"""Worker: llama.cpp through xllamacpp's server object, on a GGUF file."""

from __future__ import annotations

import time

import xllamacpp

from llamacpp_logits import logits_of
from protocol import Arm, Seconds, Settings, serve


def load(settings: Settings) -> Arm:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = settings.model, settings.context, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.cache_ram_mib = 0  # no cache of earlier prompts
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def timed(ids: list[int], new_tokens: int) -> Seconds:
        """Not streamed, for its stream holds tokens back until they end a character: the server times the decoding."""
        request = {"prompt": ids, "max_tokens": new_tokens, "ignore_eos": True, "temperature": 0.0}
        start = time.perf_counter()
        timings = server.handle_completions({**request, "cache_prompt": False})["timings"]
        total = time.perf_counter() - start
        if (timings["prompt_n"], timings["predicted_n"]) != (len(ids), new_tokens):
            raise AssertionError(f"asked for {len(ids)} and {new_tokens} tokens: {timings}")
        decode = timings["predicted_ms"] / 1000  # from the first new token to the last
        return total - decode, decode

    return Arm(timed, lambda ids: logits_of(settings, ids))


if __name__ == "__main__":
    serve(load)
