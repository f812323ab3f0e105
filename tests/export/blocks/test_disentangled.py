"""Distances in DeBERTa's buckets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgellm_export.blocks.disentangled import bucketed, distances


@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (32, 128), (8, 40), (100, 1000)])
def test_buckets_are_those_of_transformers(buckets: int, furthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    away = np.arange(-furthest, furthest + 1)
    expected = make_log_bucket_position(torch.tensor(away), buckets, furthest).long().numpy()
    np.testing.assert_array_equal(bucketed(away, buckets, furthest), expected)


def test_distances_beyond_the_table_are_its_ends() -> None:
    np.testing.assert_array_equal(distances(4, 2, 0, 2).index, [0, 0, 0, 1, 2, 3, 3, 3, 3])
