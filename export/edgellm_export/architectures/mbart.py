"""mBART and mBART-50: BART with norms before each block."""

from __future__ import annotations

from edgellm_export.architectures.bart import LEARNED, Bart, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    return parse_bart(config, pre_norm=True, embedding_norm=True, positions=LEARNED)
