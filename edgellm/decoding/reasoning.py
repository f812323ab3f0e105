"""How long a model may think: what its reasoning begins and ends with is a few tokens, and a budget forces the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgellm.decoding.processors import MINUS_INFINITY, Scores
from edgellm.types import TokenArray

AROUND = 2  # tokens that may stand between the beginning of reasoning and that of the answer, such as a line's end
Markers = tuple[tuple[int, ...], tuple[int, ...]]


def end_reasoning(
    ids: Sequence[TokenArray], prompt_lens: Sequence[int], scores: Scores, budget: int, markers: Markers
) -> Scores:
    """Behind `budget` new tokens of reasoning, only the tokens of its end stay, one after the other, at score 0.
    `markers`: the tokens that reasoning begins and ends with."""
    due = {
        row: token
        for row, (tokens, length) in enumerate(zip(ids, prompt_lens, strict=True))
        if (token := due_token(tokens, length, budget, markers)) is not None
    }
    if not due:
        return scores
    result = scores.copy()
    for row, token in due.items():
        result[row] = MINUS_INFINITY
        result[row, token] = 0
    return result


def due_token(ids: TokenArray, prompt_len: int, budget: int, markers: Markers) -> int | None:
    """The token that must come next, None where any may. Reasoning is begun by the last tokens of the prompt, or by the
    first ones of the answer: what a prompt quotes begins none."""
    begin, end = markers
    first = max(0, prompt_len - len(begin) - AROUND)
    found = _find(ids[first : prompt_len + len(begin) + AROUND], begin)
    if found is None:
        return None
    thought = ids[first + found + len(begin) :]
    if _find(thought, end) is not None:
        return None
    begun = max(n for n in range(len(end)) if n <= len(thought) and tuple(thought[len(thought) - n :]) == end[:n])
    new = min(len(thought), len(ids) - prompt_len)
    return end[begun] if new - begun >= budget else None


def _find(ids: TokenArray, wanted: Sequence[int]) -> int | None:
    """Where the tokens `wanted` begin, None where they are not."""
    places = np.flatnonzero(ids[: len(ids) - len(wanted) + 1] == wanted[0]) if len(ids) >= len(wanted) else ()
    return next((int(at) for at in places if tuple(ids[at : at + len(wanted)]) == tuple(wanted)), None)
