"""The rules for timestamps beside transformers' processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from edgellm.speech.rules import keep_timestamps_in_order

END, NONE, VOCABULARY = 10, 15, 30


@pytest.mark.parametrize("latest", [None, 0, 4])
@given(ids=st.lists(st.integers(0, VOCABULARY - 1), max_size=6), seed=st.integers(0, 99))
def test_scores(latest: int | None, ids: list[int], seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((1, VOCABULARY)).astype(np.float32) * 2
    config = GenerationConfig(no_timestamps_token_id=NONE, eos_token_id=END, max_initial_timestamp_index=latest)
    expected = WhisperTimeStampLogitsProcessor(config, begin_index=1)(torch.tensor([[0, *ids]]), torch.tensor(scores))
    found = keep_timestamps_in_order([np.array(ids, np.int64)], scores, first=NONE + 1, end=END, latest=latest)
    np.testing.assert_array_equal(found, expected.numpy())
