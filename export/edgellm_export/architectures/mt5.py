"""mT5: T5 v1.1 with a vocabulary of many languages."""

from __future__ import annotations

from edgellm_export.architectures.t5 import T5, parse_t5
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> T5:
    return parse_t5(config, scaled=False)
