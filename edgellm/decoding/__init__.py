"""Greedy search, sampling and beam search over anything that is a `Decoder`."""

from edgellm.decoding.decoder import Decoder
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.prompt_lookup import PromptLookup
from edgellm.decoding.search import search, step
from edgellm.decoding.sequence import Beginning, Emitted, Ends, Hypothesis, SequencePlan, Step

__all__ = [
    "Beginning", "Decoder", "Emitted", "Ends", "GenerationOptions", "Hypothesis", "PromptLookup", "SequencePlan",
    "Step", "search", "step",
]  # fmt: skip
