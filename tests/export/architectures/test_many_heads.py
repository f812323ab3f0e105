"""A config of more heads than memory holds is refused before anything is made for each."""

from __future__ import annotations

from typing import Any

import pytest

from edgellm.errors import CheckpointError
from edgellm_export.architectures import read_family

MANY = 2**31 - 1
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "mpt": ({"n_heads": MANY}, f"n_heads is {MANY}, expected a whole number from 1 to 65536"),
    "bloom": ({"n_head": MANY}, f"n_head is {MANY}"),
    "falcon": ({"hidden_size": MANY, "num_attention_heads": 1}, f"hidden_size is {MANY} for 1 heads, too large"),
    "modernbert": ({"hidden_size": MANY, "num_attention_heads": 1}, f"hidden_size is {MANY} for 1 heads, too large"),
    "nomic_bert": ({"hidden_size": MANY, "num_attention_heads": 1}, f"hidden_size is {MANY} for 1 heads, too large"),
    "bert": ({"num_attention_heads": MANY}, f"num_attention_heads is {MANY}"),
}


@pytest.mark.parametrize("model_type", CASES)
def test_heads_have_a_limit(model_type: str) -> None:
    config, message = CASES[model_type]
    with pytest.raises(CheckpointError, match=message):
        read_family({"model_type": model_type, **config}, 100)
