"""umT5: mT5 with relative positions in each layer."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures import t5
from edgellm_export.architectures.t5 import T5
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> T5:
    found = t5.parse(config)
    return replace(found, config=replace(found.config, shared_positions=False))
