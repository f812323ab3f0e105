"""Relative positions in buckets, as T5 has them."""

from __future__ import annotations

import numpy as np
import torch
import transformers as hf

from edgellm_export.blocks.cross_attention import RelativePositions


def test_relative_positions_are_those_of_transformers() -> None:
    bucket = hf.models.t5.modeling_t5.T5Attention._relative_position_bucket
    for buckets, longest in [(32, 128), (12, 20), (8, 64), (64, 1000)]:
        positions = RelativePositions(buckets, longest)
        distances = np.arange(-longest, longest + 1)
        both = bucket(torch.tensor(distances), True, buckets, longest).numpy()
        behind = bucket(torch.tensor(-distances[longest:]), False, buckets, longest).numpy()
        assert positions.bucket_both(distances).tolist() == both.tolist()
        assert positions.bucket_behind(distances[longest:]).tolist() == behind.tolist()
        far = torch.tensor([-10 * longest, 10 * longest])  # the ends stand for all that is beyond them
        assert bucket(far, True, buckets, longest).tolist() == [both[0], both[-1]]
