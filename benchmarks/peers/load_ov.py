"""Load worker: OpenVINO GenAI's continuous batching, without its cache of prefixes: no prompts begin alike."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import openvino
import openvino_genai as ov_genai

from load import Asked, Run, serve
from protocol import Settings


def load(settings: Settings) -> Run:
    scheduler = ov_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.max_num_seqs = 64
    scheduler.cache_size = 4  # GiB
    options = {"INFERENCE_NUM_THREADS": settings.threads}
    pipeline = ov_genai.ContinuousBatchingPipeline(settings.model, scheduler, "CPU", options)

    def run(requests: Sequence[Asked], clients: int) -> None:
        waiting, running, number = list(reversed(requests)), [], 0
        while waiting or running:
            while waiting and len(running) < clients:
                asked = waiting.pop()
                config = ov_genai.GenerationConfig(max_new_tokens=asked.new_tokens, ignore_eos=True, do_sample=False)
                asked.sent = time.perf_counter()
                handle = pipeline.add_request(number, openvino.Tensor(np.array([asked.ids], np.int64)), config)
                running.append((asked, handle))
                number += 1
            pipeline.step()
            for asked, handle in running:
                while handle.can_read():
                    for output in handle.read().values():
                        asked.emitted(len(output.generated_ids))
            running = [(asked, handle) for asked, handle in running if asked.count < asked.new_tokens]

    return run


if __name__ == "__main__":
    serve(load)
