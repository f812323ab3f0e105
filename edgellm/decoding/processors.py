"""Logits processors: what a sequence's own tokens, its length and the options forbid or make less likely.

Pure functions. `scores` is [rows, vocab] float32: logits in greedy search and sampling, log-probabilities in beam
search. `ids` holds one array per row, that row's prompt and new tokens and nothing else (no padding), so a result never
depends on the batch. Each returns scores of the same shape, excluded tokens at -inf; the input is not written to, and
comes back as it is where nothing changes. The numbers are those of the transformers class named in each docstring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgellm.decoding.choice import log_softmax
from edgellm.types import TokenArray

Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MINUS_INFINITY = np.float32(-np.inf)
MAX_FLOAT = np.finfo(np.float32).max


def repetition_penalty(ids: Sequence[TokenArray], scores: Scores, penalty: float) -> Scores:
    """Tokens already in a row get score / penalty if positive, else x penalty (RepetitionPenaltyLogitsProcessor)."""
    result = scores.copy()
    factor = np.float32(penalty)
    for row, row_ids in enumerate(ids):
        seen = scores[row, row_ids]
        result[row, row_ids] = np.where(seen < 0, seen * factor, seen / factor)
    return result


def repeated_penalty(
    ids: Sequence[TokenArray], prompt_lens: Sequence[int], scores: Scores, presence: float, frequency: float
) -> Scores:
    """Each token that a row has behind its prompt loses `presence`, and `frequency` for each time it is there (OpenAI's
    presence and frequency penalties)."""
    result = scores.copy()
    for row, (row_ids, prompt_len) in enumerate(zip(ids, prompt_lens, strict=True)):
        tokens, counts = np.unique(row_ids[prompt_len:], return_counts=True)
        result[row, tokens] -= np.float32(presence) + np.float32(frequency) * counts.astype(np.float32)
    return result


def bias(scores: Scores, biases: Sequence[tuple[int, float]]) -> Scores:
    """Add to the scores of some tokens (SequenceBiasLogitsProcessor, of single tokens)."""
    result = scores.copy()
    for token, value in biases:
        result[:, token] += np.float32(value)
    return result


def no_repeat_ngram(ids: Sequence[TokenArray], scores: Scores, size: int) -> Scores:
    """Exclude each token that would complete an n-gram the row already has (NoRepeatNGramLogitsProcessor)."""
    result = scores.copy()
    for row, row_ids in enumerate(ids):
        result[row, _ngram_ends(row_ids, size)] = MINUS_INFINITY
    return result


def encoder_repetition_penalty(sources: Sequence[TokenArray], scores: Scores, penalty: float) -> Scores:
    """Tokens of a row's source get score x penalty if positive, else / penalty, so that above 1 they are favoured
    (EncoderRepetitionPenaltyLogitsProcessor)."""
    return repetition_penalty(sources, scores, 1 / penalty)


def encoder_no_repeat_ngram(
    ids: Sequence[TokenArray], sources: Sequence[TokenArray], scores: Scores, size: int
) -> Scores:
    """Exclude each token that would complete an n-gram of the row's source (EncoderNoRepeatNGramLogitsProcessor)."""
    result = scores.copy()
    for row, (row_ids, source) in enumerate(zip(ids, sources, strict=True)):
        if len(row_ids) >= size - 1:
            result[row, _continuations(source, row_ids[len(row_ids) - size + 1 :])] = MINUS_INFINITY
    return result


def bad_words(ids: Sequence[TokenArray], scores: Scores, words: Sequence[tuple[int, ...]]) -> Scores:
    """Exclude the last token of a word after the word's other tokens (NoBadWordsLogitsProcessor)."""
    result = scores.copy()
    for word in words:
        rows = [row for row, row_ids in enumerate(ids) if _is_due(row_ids, word)]
        result[rows, word[-1]] = MINUS_INFINITY
    return result


def force(scores: Scores, rows: Mask, tokens: Sequence[int]) -> Scores:
    """In the chosen `rows` [rows] only `tokens` stay, at score 0 (ForcedBOS-, ForcedEOSTokenLogitsProcessor)."""
    if not rows.any():
        return scores
    result = scores.copy()
    result[rows] = MINUS_INFINITY
    result[np.ix_(rows, np.asarray(tokens))] = 0
    return result


def exponential_decay_length_penalty(
    scores: Scores, beyond: npt.NDArray[np.int64], factor: float, eos_token_ids: Sequence[int]
) -> Scores:
    """Raise the end tokens' scores by their size times factor^beyond - 1 in rows that are `beyond` [rows] tokens past
    where that begins; at most by what float32 holds (ExponentialDecayLengthPenalty)."""
    late = np.flatnonzero(beyond > 0)
    if not len(late):
        return scores
    ends = np.ix_(late, np.asarray(eos_token_ids))
    with np.errstate(over="ignore"):
        growth = np.minimum(np.float64(factor) ** beyond[late] - 1, MAX_FLOAT)
    known = np.where(scores[ends] > MINUS_INFINITY, scores[ends], 0).astype(np.float64)
    raised = np.minimum(known + np.abs(known) * growth[:, None], MAX_FLOAT)
    result = scores.copy()
    result[ends] = np.where(scores[ends] > MINUS_INFINITY, raised, MINUS_INFINITY)
    return result


def exclude(scores: Scores, rows: Mask, tokens: Sequence[int]) -> Scores:
    """Exclude `tokens` in the chosen `rows` [rows] (SuppressTokens-, SuppressTokensAtBegin-, and of end tokens in rows
    that are too short MinLength-, MinNewTokensLengthLogitsProcessor)."""
    chosen = np.flatnonzero(rows).tolist()
    if not chosen or not len(tokens):
        return scores
    result, ids = scores.copy(), list(tokens)
    for row in chosen:
        result[row, ids] = MINUS_INFINITY
    return result


def renormalize(scores: Scores) -> Scores:
    """Log-probabilities that sum to one again (LogitNormalization). Rows without a token left stay as they are."""
    possible = scores.max(axis=1) > MINUS_INFINITY
    result = scores.copy()
    result[possible] = log_softmax(scores[possible])
    return result


def hamming_diversity(scores: Scores, previous_tokens: Sequence[int], penalty: float) -> Scores:
    """Lower the tokens that earlier beam groups chose in this step, per choice (HammingDiversityLogitsProcessor)."""
    tokens, counts = np.unique(np.asarray(previous_tokens, dtype=np.int64), return_counts=True)
    result = scores.copy()
    result[:, tokens] -= np.float32(penalty) * counts.astype(np.float32)
    return result


def _ngram_ends(ids: TokenArray, size: int) -> TokenArray:
    """The tokens that followed the last `size - 1` tokens of `ids` wherever else those occur."""
    return _continuations(ids, ids[len(ids) - size + 1 :]) if len(ids) >= size else ids[:0]


def _continuations(text: TokenArray, start: TokenArray) -> TokenArray:
    """The tokens that follow `start` wherever it occurs in `text`."""
    starts = max(0, len(text) - len(start))
    matches = np.ones(starts, dtype=np.bool_)
    for offset, token in enumerate(start):
        matches &= text[offset : offset + starts] == token
    return text[len(start) :][matches]


def _is_due(ids: TokenArray, word: tuple[int, ...]) -> bool:
    """Whether `ids` end in the word less its last token; as in transformers, never in rows shorter than the word."""
    prefix = word[:-1]
    return not prefix or (len(ids) >= len(word) and ids[-len(prefix) :].tolist() == list(prefix))
