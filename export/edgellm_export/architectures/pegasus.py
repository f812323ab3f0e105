"""Pegasus: BART with norms before each block, sinusoidal positions, and no norm behind the embedding."""

from __future__ import annotations

from edgellm_export.architectures.bart import SINUSOIDS, Bart, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    return parse_bart(config, pre_norm=True, embedding_norm=False, positions=SINUSOIDS)
