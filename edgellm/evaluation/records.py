"""A record of the data, and the names of columns that plain text makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TEXT = "text"
TARGET = "target"  # of files with the expected text of each line


@dataclass(frozen=True)
class Record:
    """One example of the data: values by column, and its `place`, file and line, for messages."""

    values: Mapping[str, Any]
    place: str


Data = Iterable[Record]  # can be iterated again, and makes its records one at a time
