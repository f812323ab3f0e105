"""A GGUF model in one file, or in the parts that llama-gguf-split makes of it: name-00001-of-00003.gguf and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm_export.gguf.reader import GgufFile, read_gguf
from edgellm_export.gguf.tensors import GgufTensor

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MOST = 99_999


def read_model(path: Path) -> GgufFile:
    """The header of a file, or of all the parts of which it is one, in which case `path` is the first's. Raises
    CheckpointNotFoundError naming the parts that are not there, CheckpointError or UnsupportedModelError."""
    file = read_gguf(path)
    count = file.fact(COUNT, 1)
    if type(count) is not int or not 0 <= count <= MOST:
        raise CheckpointError(f"{path}: {COUNT} is {count!r}, expected the number of its parts; download it again")
    if count <= 1:
        return file
    paths = shard_paths(path, count)
    absent = [shard.name for shard in paths if not shard.is_file()]
    if absent:
        listed = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        raise CheckpointNotFoundError(f"{path} is one of {count} parts, and {listed} lacks beside it; download all")
    return _joined([file if shard == path else read_gguf(shard) for shard in paths], count)


def shard_paths(path: Path, count: int) -> list[Path]:
    """Where all parts lie, in order. Raises CheckpointError for a part that was renamed."""
    match = SHARD.fullmatch(path.name)
    if match is None or int(match["count"]) != count or not 1 <= int(match["number"]) <= count:
        raise CheckpointError(
            f"{path} is one of {count} parts, which must be called NAME-00001-of-{count:05}.gguf and so on, "
            "as they were made; rename it back"
        )
    return [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _joined(files: Sequence[GgufFile], count: int) -> GgufFile:
    tensors: dict[str, GgufTensor] = {}
    for number, file in enumerate(files):
        _check_part(file, number, count)
        twice = sorted(tensors.keys() & file.tensors.keys())
        if twice:
            raise CheckpointError(f"{file.path} has the tensor {twice[0]}, as a part before it; download all parts")
        tensors |= file.tensors
    first = files[0]
    expected = first.fact(TENSORS, len(tensors))
    if expected != len(tensors):
        raise CheckpointError(f"{first.path} and its other parts have {len(tensors)} tensors, expected {expected}")
    return GgufFile(first.path, first.metadata, tensors)


def _check_part(file: GgufFile, number: int, count: int) -> None:
    found = (file.fact(NUMBER), file.fact(COUNT))
    if found != (number, count):
        raise CheckpointError(
            f"{file.path} says that it is part {found[0]!r} of {found[1]!r}, counted from 0, expected {number} of "
            f"{count}; do the parts belong together?"
        )
