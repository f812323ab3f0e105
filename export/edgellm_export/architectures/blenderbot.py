"""Blenderbot: BART with norms before each block, none behind the embedding; positions begin with the first row."""

from __future__ import annotations

from edgellm_export.architectures.bart import Bart, Positions, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    return parse_bart(config, pre_norm=True, embedding_norm=False, positions=Positions())
