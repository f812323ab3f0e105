"""Beam search."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from edgellm.decoding.decoder import Decoder, TokenArray
from edgellm.decoding.events import Hypothesis, Step
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.stopping import Stopping


def search_beams(
    decoder: Decoder, prompts: Sequence[TokenArray], options: GenerationOptions, stopping: Stopping
) -> Generator[Step, None, list[list[Hypothesis]]]:
    raise NotImplementedError
    yield Step(())
