"""Greedy search, sampling and beam search over anything that is a `Decoder`."""

from edgellm.decoding.decoder import Decoder
from edgellm.decoding.events import Emitted, Hypothesis, Step
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.prompt_lookup import PromptLookup
from edgellm.decoding.search import search
from edgellm.decoding.sequence import Beginning, Continuation, SequencePlan
from edgellm.decoding.step import step
from edgellm.decoding.stopping import Ends
from edgellm.types import Logits, TokenArray

__all__ = [
    "Beginning",
    "Continuation",
    "Decoder",
    "Emitted",
    "Ends",
    "GenerationOptions",
    "Hypothesis",
    "Logits",
    "PromptLookup",
    "SequencePlan",
    "Step",
    "TokenArray",
    "search",
    "step",
]
