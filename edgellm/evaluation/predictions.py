"""The predictions file: a line of JSON for each example, there when all are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

from edgellm.errors import InputError

Write = Callable[[Mapping[str, Any]], None]


@contextmanager
def predictions_file(path: str | PathLike[str] | None) -> Iterator[Write]:
    """Writes to a file beside `path`, which takes that name at the end, and leaves nothing behind an error. What is no
    file, a device or a pipe, is written to as it comes. Raises InputError where it cannot be written."""
    if path is None:
        yield lambda prediction: None
        return
    target = Path(path)
    replaced = target.is_file() or not target.exists()
    partial = target.with_name(f".{target.name}.{os.getpid()}") if replaced else target
    try:
        with partial.open("w", encoding="utf-8") as file:

            def write(prediction: Mapping[str, Any]) -> None:
                file.write(json.dumps(prediction, ensure_ascii=False) + "\n")

            yield write
        if replaced:
            partial.replace(target)
    except OSError as error:
        raise InputError(f"{target}: predictions cannot be written ({error.strerror or error})") from error
    finally:
        if replaced:
            with suppress(OSError):
                partial.unlink()
