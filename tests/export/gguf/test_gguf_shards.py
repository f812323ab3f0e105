"""Files in parts, as llama-gguf-split makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import LLAMA, byte_level, llama_tensors, split, write_gguf

COUNT = 3
TOKENIZER = byte_level()
TENSORS = llama_tensors(len(TOKENIZER["tokenizer.ggml.tokens"]))


@pytest.mark.parametrize("given", range(COUNT))
def test_any_part_opens_all(tmp_path: Path, given: int) -> None:
    whole = open_checkpoint(str(write_gguf(tmp_path / "one.gguf", "llama", LLAMA | TOKENIZER, TENSORS)))
    parts = split(tmp_path)
    checkpoint = open_checkpoint(str(parts[given]))
    assert checkpoint.config == whole.config
    assert checkpoint.files == whole.files
    assert set(checkpoint.tensors) == set(whole.tensors)
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].rows(0, 5), tensor.rows(0, 5))
    assert checkpoint.source["name"] == parts[0].name
    assert set(checkpoint.source["sha256"]) == {part.name for part in parts}


def test_parts_that_are_not_there_are_named(tmp_path: Path) -> None:
    parts = split(tmp_path)
    parts[0].unlink()
    parts[2].unlink()
    with pytest.raises(CheckpointNotFoundError, match=rf"one of 3 parts, .*{parts[0].name}, {parts[2].name} lacks"):
        open_checkpoint(str(parts[1]))


def test_renamed_parts_are_asked_back(tmp_path: Path) -> None:
    renamed = split(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"must be called NAME-00001-of-00003\.gguf"):
        open_checkpoint(str(renamed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no": [1, 2]}, r"says that it is part \[1, 2\] of 3"),
        ({"no": 0}, "says that it is part 0 of 3, counted from 0, expected 2 of 3"),
        ({"count": 2}, "says that it is part 2 of 2"),
    ],
)
def test_parts_of_other_files_are_found_out(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    parts = split(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(parts[0]))


def test_lost_and_repeated_tensors_are_found_out(tmp_path: Path) -> None:
    parts = split(tmp_path)
    facts = {"split.no": 2, "split.count": COUNT}
    write_gguf(parts[2], "llama", facts, {})
    with pytest.raises(CheckpointError, match=r"have 8 tensors, expected 11"):
        open_checkpoint(str(parts[0]))
    write_gguf(parts[2], "llama", facts, {"output_norm.weight": TENSORS["output_norm.weight"]})
    with pytest.raises(CheckpointError, match=r"has the tensor output_norm\.weight, as a part before it"):
        open_checkpoint(str(parts[0]))


def test_nonsense_counts_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "w.gguf", "llama", LLAMA | TOKENIZER | {"split.count": 1 << 20}, TENSORS)
    with pytest.raises(CheckpointError, match=r"split\.count is 1048576"):
        open_checkpoint(str(path))
