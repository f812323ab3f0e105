"""What a package has of a checkpoint's generation_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgellm_export.checkpoint import Checkpoint
from edgellm_export.package.side_files import write_generation_config, write_side_files

FILE = "generation_config.json"


@pytest.mark.parametrize(
    ("file", "config", "expected"),
    [
        ({"top_k": 5, "custom": 1}, {}, {"top_k": 5, "custom": 1}),
        ({"top_k": 5, "seed": 3, "logprobs": 2, "overflow": "shift"}, {}, {"top_k": 5}),
        (None, {"top_k": 5, "seed": 3, "hidden_size": 8}, {"top_k": 5}),
    ],
)
def test_options_that_only_edgellm_has_are_not_the_checkpoints_to_set(
    file: Any, config: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    files = {} if file is None else {FILE: json.dumps(file).encode()}
    checkpoint = Checkpoint(config, {}, files, {})
    write_side_files(tmp_path, checkpoint)
    write_generation_config(tmp_path, checkpoint)
    assert json.loads((tmp_path / FILE).read_text()) == expected
