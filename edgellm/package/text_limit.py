"""How long a text may be, as tokenizer_config.json says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgellm.errors import EdgellmError

TOKENIZER_CONFIG = "tokenizer_config.json"


def text_limit(config: Mapping[str, Any], context_length: int, unfit: Callable[[str], EdgellmError]) -> int:
    """The most tokens of a text, special ones included, by `config`, which is tokenizer_config.json. Raises the error
    that `unfit` makes of what is wrong with it."""
    found = config.get("model_max_length", config.get("max_len"))
    if found is None:
        return context_length
    if isinstance(found, bool) or not isinstance(found, int | float) or not found >= 1:  # as NaN is not
        raise unfit(f"{TOKENIZER_CONFIG}: model_max_length is {found!r}, expected a number from 1")
    return int(min(found, context_length))
