"""BlenderbotSmall: BART with positions from the table's first row; the decoder's come behind the embedding's norm."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.bart import Bart, Positions, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    bart = parse_bart(config, pre_norm=False, embedding_norm=True, positions=Positions())
    return replace(bart, config=replace(bart.config, norm_before_positions=("decoder",)))
