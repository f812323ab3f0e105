"""The one entry point to all searches."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from edgellm.decoding.beam_search import search_beams
from edgellm.decoding.decoder import Decoder
from edgellm.decoding.events import Hypothesis, Step
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.rowwise import search_rows
from edgellm.decoding.stopping import Stopping
from edgellm.types import ProgressHook, TokenArray


def search(
    decoder: Decoder,
    prompts: Sequence[TokenArray],
    options: GenerationOptions,
    stopping: Stopping,
    sources: Sequence[TokenArray] | None = None,
    progress: ProgressHook | None = None,
) -> Generator[Step, None, list[list[Hypothesis]]]:
    """Continue `prompts` ([length] each, lengths may differ) as `options` say; one step per run of the model.

    `sources`: what an encoder-decoder makes the continuations of, one for each prompt; None: the prompts themselves.
    `progress`: how far the prompts are read.
    Returns, per prompt, `num_return_sequences` hypotheses, for beams best first (fewer only where the vocabulary, the
    options and the limits allow fewer different ones). What a prompt gets does not depend on the other prompts:
    sequence j of any prompt draws from the random stream (seed, j). Abandoning the generator between steps is safe.
    """
    assert len(stopping.max_new_tokens) == len(prompts)
    assert all(limit >= 1 for limit in stopping.max_new_tokens)
    if not prompts:
        return []
    strategy = search_beams if options.num_beams > 1 else search_rows
    return (yield from strategy(decoder, prompts, sources, options, stopping, progress))
