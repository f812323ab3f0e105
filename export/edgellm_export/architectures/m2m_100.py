"""M2M100, and NLLB: BART with norms before each block, none behind the embedding, and sinusoids of its own."""

from __future__ import annotations

import numpy as np

from edgellm.types import FloatArray
from edgellm_export.architectures.bart import Bart, Positions, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    first = config.integer("pad_token_id", minimum=0) + 1
    return parse_bart(config, pre_norm=True, embedding_norm=False, positions=Positions(first, evenly_spread_sinusoids))


def evenly_spread_sinusoids(positions: int, size: int) -> FloatArray:
    """[positions, size]: sines, then cosines, as tensor2tensor has them: the last wave is 10000 times the first. In
    float32, as the original."""
    waves = size // 2
    step = np.float32(np.log(10000) / (waves - 1))
    rates = np.exp(np.arange(waves, dtype=np.float32) * -step)
    angles = np.arange(positions, dtype=np.float32)[:, None] * rates
    table = np.zeros((positions, size), np.float32)
    table[:, : 2 * waves] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table
