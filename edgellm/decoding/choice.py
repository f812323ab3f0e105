"""From scores to tokens: softmax, the best few, and random draws. All sums along the vocabulary are per row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgellm.errors import OptionError, ProviderError
from edgellm.types import FloatArray, Logits, TokenArray

_BLOCKS_PER_RANK = 64
_DRAWN_BLOCK = 256  # tokens


def log_softmax(scores: FloatArray) -> FloatArray:
    """The logarithms of `softmax`, in float32."""
    result: FloatArray = scores - scores.max(axis=-1, keepdims=True)
    result -= np.log(np.exp(result).sum(axis=-1, keepdims=True))
    return result


def softmax(scores: FloatArray) -> FloatArray:
    """Probabilities along the last axis, in float32."""
    exponentials: FloatArray = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def token_logprobs(logits: Logits, tokens: TokenArray) -> list[float]:
    """The log-softmax of each row of `logits` [rows, vocab] at `tokens` [rows]."""
    best, totals = _best_and_totals(logits)
    chosen = logits[np.arange(len(tokens)), tokens]
    return [float(value) for value in chosen - best - totals]


def top_logprobs(logits: Logits, count: int) -> list[tuple[tuple[int, float], ...]]:
    """The `count` likeliest tokens of each row of `logits` [rows, vocab], the best first, and their log-softmax."""
    found = []
    for row, best, total in zip(logits, *_best_and_totals(logits), strict=True):
        tokens = best_indices(row, count)
        found.append(tuple(zip(tokens.tolist(), (row[tokens] - best - total).tolist(), strict=True)))
    return found


def _best_and_totals(logits: Logits) -> tuple[FloatArray, FloatArray]:
    """Of each row of `logits` [rows, vocab]: the largest, and the logarithm of the sum of exponentials beside it."""
    best = logits.max(axis=1)
    return best, np.log(np.exp(logits - best[:, None]).sum(axis=1))


def best_indices(values: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` largest of `values` [n], largest first, the lower index first where several are equal."""
    candidates = at_least_kth(values, count) if count < len(values) else np.arange(len(values))
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:count]]


def at_least_kth(values: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Indices, ascending, of all `values` [n] that are not below the k-th largest, NaNs included; 1 <= k <= n."""
    candidates = _candidates(values, k)
    found = values[candidates]
    return candidates[~(found < _kth_largest(found, k))]


def kth_largest(values: FloatArray, k: int) -> np.float32:
    """The k-th largest of `values` [n], 1 <= k <= n."""
    return _kth_largest(values[_candidates(values, k)], k)


def _candidates(values: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Indices, ascending, among which the k largest of `values` are; few if there are many values."""
    blocks = k * _BLOCKS_PER_RANK
    if len(values) <= 4 * blocks:
        return np.arange(len(values))
    # The k-th largest block maximum has k values at or above it, so it bounds the k-th largest from below, cheaply.
    # Blocks interleave: maxima along the first axis are ten times as fast.
    size = len(values) // blocks
    maxima = values[: size * blocks].reshape(size, blocks).max(axis=0)
    return np.flatnonzero(~(values < _kth_largest(maxima, k)))


def _kth_largest(values: FloatArray, k: int) -> np.float32:
    result: np.float32 = np.partition(values, len(values) - k)[len(values) - k]
    return result


def greedy(scores: FloatArray) -> TokenArray:
    """The best token of each row of `scores` [rows, vocab]; the lowest id where several are equal."""
    tokens: TokenArray = scores.argmax(axis=1)
    for row, token in enumerate(tokens.tolist()):
        check_best(float(scores[row, token]))
    return tokens


def sample(scores: FloatArray, streams: list[np.random.Generator]) -> TokenArray:
    """One token per row of `scores` [rows, vocab], drawn from its softmax with the row's own random stream."""
    return np.array([_draw(row, stream) for row, stream in zip(scores, streams, strict=True)], dtype=np.int64)


def sample_without_replacement(scores: FloatArray, count: int, stream: np.random.Generator) -> npt.NDArray[np.int64]:
    """Up to `count` different indices of `scores` [n], drawn one after another from the softmax, in the order drawn.

    The largest of scores with Gumbel noise are such a draw (Kool et al. 2019, arXiv 1903.06059).
    """
    possible = np.flatnonzero(scores > -np.inf)
    noisy = scores[possible] - np.log(stream.standard_exponential(len(possible)))
    return possible[np.argsort(-noisy)[:count]]


def random_stream(seed: int | None, number: int) -> np.random.Generator:
    """The random stream of a prompt's sequence `number`. It depends on no other prompt of the batch."""
    return np.random.default_rng(None if seed is None else [seed, number])


def check_best(score: float) -> None:
    """Raise if the best score of a row is nothing to go by."""
    if math.isnan(score):
        raise _no_numbers()
    if score == -math.inf:
        raise OptionError(
            "the options exclude every token at this point; "
            "loosen bad_words_ids, suppress_tokens, no_repeat_ngram_size or min_new_tokens"
        )


def check_numbers(scores: FloatArray) -> None:
    if np.isnan(scores).any():
        raise _no_numbers()


def _no_numbers() -> ProviderError:
    return ProviderError("the model returned logits that are not numbers (NaN); try another precision or device")


def _draw(scores: FloatArray, stream: np.random.Generator) -> int:
    """A token drawn by scores [vocab]. The cumulative probabilities are walked to one uniform number, in float64: block
    by block, then within the block it falls into."""
    best = scores.max()
    check_best(float(best))
    weights = np.exp(scores - best)
    blocks = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _DRAWN_BLOCK), dtype=np.float64))
    number = stream.random() * blocks[-1]
    last = np.searchsorted(blocks, blocks[-1])  # that has a token to choose
    block = int(min(np.searchsorted(blocks, number, side="right"), last))
    start = block * _DRAWN_BLOCK
    within = np.cumsum(weights[start : start + _DRAWN_BLOCK], dtype=np.float64)
    passed = np.flatnonzero(within > number - (blocks[block - 1] if block else 0.0))
    # Rounding may leave nothing behind the number: then it is the block's last token that is possible at all.
    return start + int(passed[0] if len(passed) else np.flatnonzero(weights[start : start + _DRAWN_BLOCK])[-1])
