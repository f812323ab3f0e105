"""The logits processors that a set of options asks for, in the order in which transformers applies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.decoding import processors as p
from edgellm.decoding import warpers as w
from edgellm.decoding.constraint import ConstraintState, constrain
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.processors import Scores
from edgellm.decoding.reasoning import end_reasoning
from edgellm.types import TokenArray


@dataclass(frozen=True)
class ScoredRows:
    """The sequences that scores belong to: the ids of each (prompt and new tokens), two lengths of each, what it was
    made of (an encoder's source, or the prompt), and where it is in its constraint."""

    ids: Sequence[TokenArray]
    prompt_lens: Sequence[int]
    max_new_tokens: Sequence[int]
    sources: Sequence[TokenArray] = ()
    states: Sequence[ConstraintState | None] = ()

    @property
    def new_lens(self) -> npt.NDArray[np.int64]:
        return self.lens - np.array(self.prompt_lens, dtype=np.int64)

    @property
    def lens(self) -> npt.NDArray[np.int64]:
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)


Processor = Callable[[ScoredRows, Scores], Scores]


def build_processors(
    options: GenerationOptions, eos_token_ids: tuple[int, ...], *, constrained: bool = False,
    before_sampling: Sequence[Processor] = (),
) -> list[Processor]:  # fmt: skip
    """The chain is empty for plain greedy search and plain sampling, which then pay nothing. `constrained`: whether the
    rows have states, which have the last word on what is excluded. `before_sampling`: more of them, behind those that
    options ask for, but in front of what only sampling does."""
    chain = [*_processors(options, eos_token_ids), *before_sampling]
    if constrained:
        chain = [_constrained(chain, options, eos_token_ids)]
    if options.do_sample:
        chain += _warpers(options, eos_token_ids)
    return [*chain, lambda _, scores: p.renormalize(scores)] if options.renormalize_logits else chain


def process(processors: Sequence[Processor], rows: ScoredRows, scores: Scores) -> Scores:
    """What the processors make of scores [rows, vocab], which are not written to."""
    for processor in processors:
        scores = processor(rows, scores)
    return scores


def _processors(options: GenerationOptions, eos_token_ids: tuple[int, ...]) -> list[Processor]:
    o = options
    words = [word for word in o.bad_words_ids if word not in {(eos,) for eos in eos_token_ids}]
    chain: list[Processor] = []
    if o.logit_bias:
        chain.append(lambda _, scores: p.bias(scores, o.logit_bias))
    if o.presence_penalty or o.frequency_penalty:
        chain.append(
            lambda rows, s: p.repeated_penalty(rows.ids, rows.prompt_lens, s, o.presence_penalty, o.frequency_penalty)
        )
    if o.encoder_repetition_penalty != 1:
        chain.append(lambda rows, s: p.encoder_repetition_penalty(rows.sources, s, o.encoder_repetition_penalty))
    if o.repetition_penalty != 1:
        chain.append(lambda rows, scores: p.repetition_penalty(rows.ids, scores, o.repetition_penalty))
    if o.no_repeat_ngram_size:
        chain.append(lambda rows, scores: p.no_repeat_ngram(rows.ids, scores, o.no_repeat_ngram_size))
    if size := o.encoder_no_repeat_ngram_size:
        chain.append(lambda rows, scores: p.encoder_no_repeat_ngram(rows.ids, rows.sources, scores, size))
    if words:
        chain.append(lambda rows, scores: p.bad_words(rows.ids, scores, words))
    if eos_token_ids and (o.min_new_tokens or o.min_length):
        chain.append(lambda rows, scores: p.exclude(scores, _too_short(o, rows), eos_token_ids))
    if (bos := o.forced_bos_token_id) is not None:
        chain.append(lambda rows, scores: p.force(scores, rows.lens == 1, (bos,)))
    if eos := o.forced_eos_token_id:
        chain.append(lambda rows, scores: p.force(scores, rows.new_lens == np.asarray(rows.max_new_tokens) - 1, eos))
    if (decay := o.exponential_decay_length_penalty) and eos_token_ids:
        start, factor = decay
        chain.append(
            lambda rows, s: p.exponential_decay_length_penalty(s, rows.new_lens - start, factor, eos_token_ids)
        )
    if o.suppress_tokens:
        chain.append(lambda rows, scores: p.exclude(scores, rows.lens > 0, o.suppress_tokens))
    if o.begin_suppress_tokens:
        chain.append(lambda rows, scores: p.exclude(scores, _at_begin(o, rows), o.begin_suppress_tokens))
    if (budget := o.reasoning_budget) is not None and o.reasoning_markers:
        begin, end = o.reasoning_markers
        chain.append(lambda rows, s: end_reasoning(rows.ids, rows.prompt_lens, s, budget, (begin, end)))
    return chain


def _constrained(others: Sequence[Processor], options: GenerationOptions, eos_token_ids: tuple[int, ...]) -> Processor:
    def processor(rows: ScoredRows, scores: Scores) -> Scores:
        lengths = zip(rows.states, rows.ids, strict=True)
        states = [None if options.forces_token_behind(len(ids)) else state for state, ids in lengths]
        return constrain(process(others, rows, scores), scores, states, eos_token_ids)

    return processor


def _warpers(options: GenerationOptions, eos_token_ids: tuple[int, ...]) -> list[Processor]:
    o = options
    # Beams need a token that does not end the sequence beside every one that does.
    keep = max(2, 1 + len(eos_token_ids)) if o.num_beams > 1 else 1
    chain: list[Processor] = []
    if o.temperature != 1:
        chain.append(lambda _, scores: w.temperature(scores, o.temperature))
    if o.top_k:
        chain.append(lambda _, scores: w.top_k(scores, o.top_k, keep))
    if o.top_p < 1:
        chain.append(lambda _, scores: w.top_p(scores, o.top_p, keep))
    if (share := o.min_p) is not None:
        chain.append(lambda _, scores: w.min_p(scores, share, keep))
    if o.typical_p < 1:
        chain.append(lambda _, scores: w.typical_p(scores, o.typical_p, keep))
    if o.epsilon_cutoff:
        chain.append(lambda _, scores: w.epsilon_cutoff(scores, o.epsilon_cutoff, keep))
    if o.eta_cutoff:
        chain.append(lambda _, scores: w.eta_cutoff(scores, o.eta_cutoff, keep))
    return chain


def _too_short(options: GenerationOptions, rows: ScoredRows) -> p.Mask:
    lengths = zip(rows.ids, rows.prompt_lens, strict=True)
    return np.array([len(ids) - prompt < options.minimum(prompt) for ids, prompt in lengths])


def _at_begin(options: GenerationOptions, rows: ScoredRows) -> p.Mask:
    """The first free choice: after a prompt of one token, a forced first token comes before it."""
    forced = np.array([options.forces_token_behind(length) for length in rows.prompt_lens])
    mask: p.Mask = rows.new_lens == forced
    return mask
