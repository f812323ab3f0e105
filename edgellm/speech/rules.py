"""Rules for timestamps, as pure functions on scores [rows, vocab] and the tokens of each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgellm.decoding.choice import log_softmax
from edgellm.decoding.processors import MINUS_INFINITY, Scores
from edgellm.types import TokenArray


def keep_timestamps_in_order(
    new_ids: Sequence[TokenArray], scores: Scores, *, first: int, end: int, latest: int | None
) -> Scores:
    """Timestamps come in pairs, rise, and are taken where they are together likelier than any text
    (WhisperTimeStampLogitsProcessor). `first`: the first of the timestamps, which lie behind all other tokens; the one
    before it, which asks for none, is excluded. `end`: the end token. `latest`: how many timestamps the first token may
    be past the first; None for any."""
    result = scores.copy()
    result[:, first - 1] = MINUS_INFINITY
    for row, ids in enumerate(new_ids):
        _exclude(result[row], ids, first, end, latest)
    logprobs = log_softmax(result)
    text, timestamps = logprobs[:, :first].max(axis=1), np.logaddexp.reduce(logprobs[:, first:], axis=1)
    result[timestamps > text, :first] = MINUS_INFINITY
    return result


def _exclude(scores: Scores, ids: TokenArray, first: int, end: int, latest: int | None) -> None:
    """Of one row: scores [vocab] are written to."""
    if not len(ids):
        scores[:first] = MINUS_INFINITY
        if latest is not None:
            scores[first + latest + 1 :] = MINUS_INFINITY
        return
    behind_one = ids[-1] >= first
    closes = behind_one and not (len(ids) < 2 or ids[-2] >= first)
    if behind_one:
        if closes:
            scores[:end] = MINUS_INFINITY
        else:
            scores[first:] = MINUS_INFINITY
    timestamps = ids[ids >= first]
    if len(timestamps):  # the one that closes a piece of text may come again, to begin the next
        scores[first : timestamps[-1] + (0 if closes else 1)] = MINUS_INFINITY
