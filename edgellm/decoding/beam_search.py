"""The loop of all searches with beams: prompts side by side in one batch, each searched on its own."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from edgellm.decoding.beam import Beams, Group, Plan, final_score
from edgellm.decoding.choice import random_stream
from edgellm.decoding.decoder import HEADROOM, Decoder
from edgellm.decoding.events import Hypothesis, Step
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.pipeline import build_processors
from edgellm.decoding.stopping import Stopping
from edgellm.types import Logits, ProgressHook, TokenArray


def search_beams(
    decoder: Decoder,
    prompts: Sequence[TokenArray],
    sources: Sequence[TokenArray] | None,
    options: GenerationOptions,
    stopping: Stopping,
    progress: ProgressHook | None,
) -> Generator[Step, None, list[list[Hypothesis]]]:
    """See `edgellm.decoding.search`. Rows of the decoder: prompts, in each its groups, in each its beams."""
    plan = Plan(options, stopping, build_processors(options, stopping.eos_token_ids))
    searches = [
        _create_groups(plan, index, prompt, source)
        for index, (prompt, source) in enumerate(zip(prompts, sources or prompts, strict=True))
    ]
    headroom = min(HEADROOM, max(stopping.max_new_tokens))
    logits = decoder.prefill(prompts, sources, headroom=headroom, progress=progress)
    options.check_vocabulary(logits.shape[1])
    running = [group for groups in searches for group in groups]
    while True:
        interruption = stopping.interruption()
        for groups in searches:
            _step(plan, groups, logits, interruption)
        yield Step(())
        running = [group for group in running if not group.done]
        if not running:
            return [_best(groups, options.num_return_sequences) for groups in searches]
        _reorder(decoder, running, len(logits))
        logits = decoder.decode(np.concatenate([group.next_tokens for group in running]))


def _create_groups(plan: Plan, index: int, prompt: TokenArray, source: TokenArray) -> list[Group]:
    start = Beams(
        ids=np.asarray(prompt, dtype=np.int64)[None],
        scores=np.zeros(1, dtype=np.float32),
        logprobs=np.zeros((1, 0), dtype=np.float32),
        rows=np.array([index], dtype=np.int64),
    )
    options = plan.options
    return [
        Group(
            plan=plan,
            prompt_len=len(prompt),
            source=source,
            limit=plan.stopping.max_new_tokens[index],
            diverse=options.num_beam_groups > 1,
            beams=start,
            stream=random_stream(options.seed, 0) if options.do_sample else None,
        )
        for _ in range(options.num_beam_groups)
    ]


def _step(plan: Plan, groups: Sequence[Group], logits: Logits, interruption: str | None) -> None:
    """One step of one prompt: its groups in turn, each told what the earlier ones chose."""
    earlier_tokens: list[int] = []
    for group in groups:
        if group.done:
            earlier_tokens += _padding(plan)
        else:
            group.step(logits, earlier_tokens, interruption)
            earlier_tokens += group.next_tokens.tolist()


def _padding(plan: Plan) -> list[int]:
    """What a group that is done counts as having chosen, as in transformers: padding, by default the end token."""
    pad, eos = plan.stopping.pad_token_id, plan.stopping.eos_token_ids
    tokens = [pad] if pad is not None else list(eos[:1])
    return tokens * plan.group_size


def _reorder(decoder: Decoder, running: Sequence[Group], old_rows: int) -> None:
    """Let the decoder's rows follow the running beams."""
    parents = np.concatenate([group.beams.rows for group in running])
    if not np.array_equal(parents, np.arange(old_rows)):
        decoder.reorder(parents)
    start = 0
    for group in running:
        count = len(group.beams.rows)
        group.beams = replace(group.beams, rows=np.arange(start, start + count))
        start += count


def _best(groups: Sequence[Group], count: int) -> list[Hypothesis]:
    """The best of all groups; of equal ones the later group's, as in transformers."""
    found = [hypothesis for group in reversed(groups) for hypothesis in group.finished]
    return sorted(found, key=final_score, reverse=True)[:count]
