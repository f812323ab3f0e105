"""Beam search, beam sampling and group beam search: the beams of one prompt, step by step, among a decoder's rows.

Semantics and numbers (float32) are those of transformers 4.57: `GenerationMixin._beam_search` for one group, and for
several the `BeamSearchScorer` with diverse groups (Vijayakumar et al. 2016, arXiv 1610.02424). The two differ a little;
`Group.diverse` marks where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgellm.decoding.chain import ScoredRows, process
from edgellm.decoding.choice import (
    best_indices,
    check_best,
    check_numbers,
    log_softmax,
    random_stream,
    sample_without_replacement,
)
from edgellm.decoding.constraint import ConstraintState
from edgellm.decoding.processors import hamming_diversity
from edgellm.decoding.sequence import STUCK, Beginning, Hypothesis
from edgellm.types import FloatArray, Logits, TokenArray


@dataclass(frozen=True)
class Beams:
    """Unfinished sequences of equal length, the best first."""

    ids: TokenArray  # [beams, prompt and new tokens]
    scores: FloatArray  # [beams], the sum of the new tokens' processed log-probabilities
    logprobs: FloatArray  # [beams, new tokens] of the model's own logits; [beams, 0] if not asked for
    rows: TokenArray  # [beams], the decoder's row that each continues
    states: tuple[ConstraintState | None, ...]  # [beams], where each is in its constraint


@dataclass(frozen=True)
class Candidates:
    """Continuations of beams by one token: in order of score, or in the order drawn."""

    parents: npt.NDArray[np.int64]  # [candidates], which beam
    tokens: TokenArray  # [candidates]
    scores: FloatArray  # [candidates]


@dataclass
class Group:
    """Beams that compete with each other for one prompt. Plain beam search is one group per prompt.

    `beams` starts as the prompt alone and grows to the group's size with the first step.
    """

    beginning: Beginning
    diverse: bool  # one of several groups
    beams: Beams
    stream: np.random.Generator | None  # None: no sampling
    finished: list[Hypothesis] = field(default_factory=list)  # at most the group's size, the best first
    done: bool = False

    def __post_init__(self) -> None:
        self.plan, self.limit = self.beginning.plan, self.beginning.max_new_tokens
        self.prompt_len = len(self.beginning.prompt)
        self.size = self.plan.options.num_beams // self.plan.options.num_beam_groups

    @property
    def num_candidates(self) -> int:
        """So many candidates that `size` go on even if every end token of every beam is among them."""
        return max(2, 1 + len(self.plan.ends.eos_token_ids)) * self.size

    @property
    def next_tokens(self) -> list[int]:
        tokens: list[int] = self.beams.ids[:, -1].tolist()
        return tokens

    def step(self, logits: Logits, earlier_tokens: Sequence[int], cut: str | None) -> None:
        """Replace the beams by their best continuations. logits: [decoder rows, vocab].

        `earlier_tokens` are the choices of the prompt's earlier groups in this step. `cut`: why all beams end with this
        step if nothing else ends them.
        """
        model_logprobs = log_softmax(logits[self.beams.rows])
        check_numbers(model_logprobs[:, 0])  # one NaN among a row's logits makes the whole row NaN
        candidates = self._candidates(self._score(model_logprobs, earlier_tokens))
        extended, ends = self._without_stuck(self._extend(candidates, model_logprobs))
        new_len = extended.ids.shape[1] - self.prompt_len
        cut = "length" if new_len >= self.limit else cut

        if not self.diverse:
            ends = [end or cut for end in ends]
        self._finish([(i, end) for i, end in enumerate(ends[: self.size]) if end is not None], extended)

        going_on = np.flatnonzero([end is None for end in ends])
        going_on = going_on[best_indices(extended.scores[going_on], self.size)]
        self.beams = _take(extended, going_on)
        best = candidates.scores if self.diverse else self.beams.scores
        self.done = not len(going_on) or not self._can_improve(best.max(), new_len)
        if cut is not None and not self.done:
            self._finish([(int(i), cut) for i in going_on], extended)
            self.done = True

    def _score(self, model_logprobs: FloatArray, earlier_tokens: Sequence[int]) -> FloatArray:
        """The score of each continuation, [beams, vocab]; excluded ones at -inf."""
        count = len(model_logprobs)
        sources = [self.beginning.made_of] * count
        rows = ScoredRows(
            list(self.beams.ids), [self.prompt_len] * count, [self.limit] * count, sources, self.beams.states
        )
        scores = process(self.plan.processors, rows, model_logprobs)
        if earlier_tokens:
            scores = hamming_diversity(scores, earlier_tokens, self.plan.options.diversity_penalty)
        result: FloatArray = scores + self.beams.scores[:, None]
        return result

    def _candidates(self, scores: FloatArray) -> Candidates:
        """The best, or drawn, by scores [beams, vocab]: fewer than planned only where fewer are possible."""
        flat = scores.reshape(-1)
        if self.stream is None:
            chosen = best_indices(flat, self.num_candidates)
            chosen = chosen[flat[chosen] > -np.inf]
        else:
            chosen = sample_without_replacement(flat, self.num_candidates, self.stream)
        if not len(chosen) and not self.finished:
            check_best(float(flat.max()))
        return Candidates(*np.divmod(chosen, scores.shape[1]), flat[chosen])

    def _extend(self, candidates: Candidates, model_logprobs: FloatArray) -> Beams:
        parents, tokens = candidates.parents, candidates.tokens
        logprobs = self.beams.logprobs[parents]
        if self.plan.options.logprobs:
            logprobs = np.concatenate([logprobs, model_logprobs[parents, tokens][:, None]], axis=1)
        ids = np.concatenate([self.beams.ids[parents], tokens[:, None]], axis=1)
        states = tuple(self._followed(self.beams.states[parent], i) for parent, i in zip(parents, ids, strict=True))
        return Beams(ids, candidates.scores, logprobs, self.beams.rows[parents], states)

    def _without_stuck(self, extended: Beams) -> tuple[Beams, list[str | None]]:
        """Continuations and why each ends, if it does: of those that are stuck none, unless there is nothing else."""
        grown = zip(extended.states, extended.ids, strict=True)
        ends = [self.plan.end_of_text(state, ids, self.prompt_len) for state, ids in grown]
        others = np.flatnonzero([end != STUCK for end in ends])
        if len(others) == len(ends) or not (len(others) or self.finished):
            return extended, ends
        return _take(extended, others), [ends[i] for i in others]

    def _followed(self, parent: ConstraintState | None, ids: TokenArray) -> ConstraintState | None:
        """The state of a beam's continuation, of which there are several."""
        state = None if parent is None else parent.copy()
        self.plan.advance(state, ids)
        return state

    def _finish(self, ends: Sequence[tuple[int, str]], extended: Beams) -> None:
        """Add candidates with their finish reasons, then keep the best; the earlier one where scores are equal."""
        new = [self._hypothesis(extended, i, reason) for i, reason in ends]
        self.finished = sorted([*self.finished, *new], key=final_score, reverse=True)[: self.size]

    def _hypothesis(self, extended: Beams, i: int, reason: str) -> Hypothesis:
        tokens = tuple(extended.ids[i, self.prompt_len :].tolist())
        logprobs = tuple(extended.logprobs[i].tolist()) if self.plan.options.logprobs else None
        state = extended.states[i]
        complete = None if state is None else state.may_end
        return Hypothesis(tokens, logprobs, self._penalise(extended.scores[i], len(tokens)), reason, complete)

    def _can_improve(self, best_score: np.float32, new_len: int) -> bool:
        """Whether a better hypothesis may still come, by the rule that `early_stopping` names."""
        if len(self.finished) < self.size:
            return True
        if self.plan.options.early_stopping is True:
            return False
        patient = self.plan.options.early_stopping == "never" and self.plan.options.length_penalty > 0
        return self._penalise(best_score, self.limit if patient else new_len) > final_score(self.finished[-1])

    def _penalise(self, score: np.float32, length: int) -> float:
        with np.errstate(all="ignore"):
            return float(score / np.float32(np.float64(length) ** self.plan.options.length_penalty))


def _take(beams: Beams, chosen: npt.NDArray[np.int64]) -> Beams:
    states = tuple(beams.states[i] for i in chosen)
    return Beams(beams.ids[chosen], beams.scores[chosen], beams.logprobs[chosen], beams.rows[chosen], states)


def final_score(hypothesis: Hypothesis) -> float:
    assert hypothesis.score is not None
    return hypothesis.score


class BeamSearch:
    """The search of one prompt. It begins with `row` of the decoder, and has one row per beam from the first step on:
    the groups' in turn, in each its beams."""

    def __init__(self, beginning: Beginning, row: int) -> None:
        self._plan = beginning.plan
        self._groups = _create_groups(beginning, row)

    @property
    def done(self) -> bool:
        return all(group.done for group in self._groups)

    def step(self, logits: Logits, interruption: str | None) -> None:
        """Let its groups step in turn, each told what the earlier ones chose. logits: [decoder rows, vocab]."""
        earlier_tokens: list[int] = []
        cut = interruption or self._plan.ends.of_time()
        for group in self._groups:
            if group.done:
                earlier_tokens += self._padding()
            else:
                group.step(logits, earlier_tokens, cut)
                earlier_tokens += group.next_tokens

    def next_tokens(self) -> list[int]:
        """The last token of each beam that goes on."""
        return [token for group in self._running() for token in group.next_tokens]

    def move_to(self, start: int) -> list[int]:
        """Take the decoder's rows from `start` on. Returns the old rows that they continue."""
        parents: list[int] = []
        for group in self._running():
            first = start + len(parents)
            parents += group.beams.rows.tolist()
            group.beams = replace(group.beams, rows=np.arange(first, start + len(parents)))
        return parents

    def hypotheses(self) -> list[Hypothesis]:
        """The best of all groups; of equal ones the later group's, as in transformers."""
        found = [hypothesis for group in reversed(self._groups) for hypothesis in group.finished]
        return sorted(found, key=final_score, reverse=True)[: self._plan.options.num_return_sequences]

    def _running(self) -> Sequence[Group]:
        return [group for group in self._groups if not group.done]

    def _padding(self) -> list[int]:
        """What a group that is done counts as having chosen, as in transformers: padding, by default the end token."""
        pad, eos = self._plan.ends.pad_token_id, self._plan.ends.eos_token_ids
        tokens = [pad] if pad is not None else list(eos[:1])
        return tokens * self._groups[0].size


def _create_groups(beginning: Beginning, row: int) -> list[Group]:
    start = Beams(
        ids=np.asarray(beginning.prompt, dtype=np.int64)[None],
        scores=np.zeros(1, dtype=np.float32),
        logprobs=np.zeros((1, 0), dtype=np.float32),
        rows=np.array([row], dtype=np.int64),
        states=(beginning.plan.begin(),),
    )
    options = beginning.plan.options
    return [
        Group(
            beginning=beginning,
            diverse=options.num_beam_groups > 1,
            beams=start,
            stream=random_stream(options.seed, 0) if options.do_sample else None,
        )
        for _ in range(options.num_beam_groups)
    ]
