"""Marian: BART with sinusoidal positions and no norm behind the embedding."""

from __future__ import annotations

from edgellm_export.architectures.bart import Bart, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    return parse_bart(config, pre_norm=False, embedding_norm=False, learned_positions=False)
