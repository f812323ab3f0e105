"""Worker: OpenVINO GenAI, on a directory that optimum-intel made.

Its pipeline with its own defaults but one: no prefix cache, so that each prompt is read anew. The logits come from the
same graph through openvino itself, for the pipeline keeps the last position only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino
import openvino_genai as ov_genai

from protocol import Arm, Emitted, Settings, by_token, serve


class Counting(ov_genai.StreamerBase):
    def __init__(self, emitted: Emitted) -> None:
        super().__init__()
        self._emitted = emitted

    def write(self, token: int | list[int]) -> ov_genai.StreamingStatus:
        for _ in token if isinstance(token, list) else [token]:
            self._emitted()
        return ov_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


def load(settings: Settings) -> Arm:
    scheduler = ov_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.max_num_batched_tokens = sys.maxsize  # as the pipeline chooses where it is given no scheduler
    options = {"INFERENCE_NUM_THREADS": settings.threads}
    pipeline = ov_genai.LLMPipeline(settings.model, "CPU", scheduler_config=scheduler, **options)

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        config = ov_genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)
        pipeline.generate(openvino.Tensor(np.array([ids], np.int64)), config, Counting(emitted))

    def logits(ids: list[int]) -> np.ndarray:
        graph = Path(settings.model) / "openvino_model.xml"
        request = openvino.Core().compile_model(graph, "CPU", options).create_infer_request()
        tokens = np.array([ids], np.int64)
        inputs = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "position_ids": np.arange(len(ids))[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        names = {name for port in request.model_inputs for name in port.names}
        return request.infer({name: value for name, value in inputs.items() if name in names})["logits"][0]

    return Arm(by_token(generate), logits)


if __name__ == "__main__":
    serve(load)
