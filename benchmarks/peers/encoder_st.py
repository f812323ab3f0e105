"""Worker: sentence-transformers on PyTorch, token ids in, vectors out."""

from __future__ import annotations

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from encoder_arm import encoder_arm
from protocol import Arm, Settings, serve


def load(settings: Settings) -> Arm:
    torch.set_num_threads(settings.threads)
    model = SentenceTransformer(settings.model, device="cpu").eval()

    @torch.inference_mode()
    def run(ids: np.ndarray) -> np.ndarray:
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.int64)}
        found: np.ndarray = model(features)["sentence_embedding"].numpy()
        return found

    return encoder_arm(run)


if __name__ == "__main__":
    serve(load)
