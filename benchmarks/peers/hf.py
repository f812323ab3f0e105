"""Worker: transformers on torch, float32: the reference of the others' quality too. The model is a checkpoint."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from protocol import Arm, Emitted, Settings, by_token, serve


class Counting(BaseStreamer):
    def __init__(self, emitted: Emitted) -> None:
        self._emitted = emitted
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """The prompt comes first, then each new token."""
        if self._prompt_seen:
            self._emitted()
        self._prompt_seen = True

    def end(self) -> None:
        pass


def load(settings: Settings) -> Arm:
    torch.set_num_threads(settings.threads)
    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0, do_sample=False)

    def generate(ids: list[int], new_tokens: int, emitted: Emitted) -> None:
        tokens = torch.tensor([ids])
        options = {"max_new_tokens": new_tokens, "attention_mask": torch.ones_like(tokens)}
        model.generate(tokens, streamer=Counting(emitted), **options)

    def logits(ids: list[int]) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].numpy()

    return Arm(by_token(generate), logits)


if __name__ == "__main__":
    serve(load)
