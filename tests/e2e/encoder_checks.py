"""What the tests of encoders share."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import torch

from edgellm.text.encodings import Encoding
from encoder_families import BY_NAME

TOLERANCE = 2e-5  # largest difference over largest magnitude
LENGTHS = [17, 5, 30, 16, 1, 30]  # tokens


def inputs(name: str, seed: int = 0) -> list[Encoding]:
    """Random tokens in two segments, none of them special."""
    rng = np.random.default_rng(seed)
    types = BY_NAME[name].settings.get("type_vocab_size", 1)
    found = []
    for length in LENGTHS:
        ids = rng.integers(5, 131, length)
        segments = np.minimum((np.arange(length) > length // 2).astype(np.int64), types - 1)
        found.append(
            Encoding(ids, segments, np.zeros(length, np.bool_), np.zeros((length, 2), np.int64), segments, segments)
        )
    return found


@torch.no_grad()
def expected(model: Any, one: Encoding) -> dict[str, np.ndarray]:
    feeds = {"input_ids": torch.tensor(one.ids[None])}
    if "token_type_ids" in signature(model.forward).parameters:
        feeds["token_type_ids"] = torch.tensor(one.type_ids[None])
    out = model(**feeds)
    names = ("logits", "start_logits", "end_logits", "last_hidden_state")
    return {name: out[name][0].numpy() for name in names if name in out}
