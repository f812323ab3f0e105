"""The files that a batch reads, line by line: JSON lines, CSV and TSV; Parquet is in `parquet.py`.

A file is read as often as it is iterated. One line that is wrong is that line's own problem; what is wrong with the
whole, such as a row of CSV that cannot be told from the next, is found when the file is first looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgellm.bulk.lines import Line
from edgellm.errors import InputError, OptionError, system_errors
from edgellm.text.rows import BOM, at_line, read_rows

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Facts:
    """`sha256`: of the file. `size`: of all lines together, in the unit of `Line.size`."""

    sha256: str
    lines: int
    size: int


class Input(Protocol):
    """A file of lines. `columns`: None where each line has its own."""

    @property
    def path(self) -> Path: ...

    @property
    def columns(self) -> Sequence[str] | None: ...

    def lines(self) -> Iterator[Line]: ...

    def facts(self) -> Facts:
        """Reads the whole file. Raises InputError."""


def open_input(path: Path) -> Input:
    """Raises OptionError for a name that says no format, and InputError for a file that cannot be read."""
    with read_errors(path):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file; it is read several times, so give a file and no folder or pipe")
        kind = kind_of(path)
        if kind == "parquet":
            from edgellm.bulk.parquet import ParquetInput

            return ParquetInput.open(path)
        return JsonLines(path) if kind == "jsonl" else Separated.open(path)


def kind_of(path: Path) -> str:
    """ "jsonl", "csv" or "parquet", from the name. Raises OptionError."""
    if path.suffix.lower() not in KINDS:
        raise OptionError(f"{path} does not say what it is; expected a name that ends with {', '.join(KINDS)}")
    return KINDS[path.suffix.lower()]


def read_errors(path: Path) -> AbstractContextManager[None]:
    return system_errors(InputError, lambda error: f"{path} cannot be read: {error.strerror or error}")


@dataclass(frozen=True)
class JsonLines:
    """An object in each line; empty lines are left out."""

    path: Path
    columns = None

    def lines(self) -> Iterator[Line]:
        with read_errors(self.path), self.path.open("rb") as file:
            number = 0
            for row, raw in enumerate(file, 1):
                if raw.strip():
                    values, problem = parsed(raw, first=row == 1)
                    yield Line(number, at_line(self.path, row), values, len(raw), problem)
                    number += 1

    def facts(self) -> Facts:
        digest, lines, size = hashlib.sha256(), 0, 0
        with read_errors(self.path), self.path.open("rb") as file:
            for raw in file:
                digest.update(raw)
                if raw.strip():
                    lines, size = lines + 1, size + len(raw)
        return Facts(digest.hexdigest(), lines, size)


def parsed(raw: bytes, *, first: bool = False) -> tuple[Mapping[str, Any], str]:
    """The object in a line, or none and what is wrong with the line."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return {}, f"the line is not UTF-8 (byte 0x{raw[error.start]:02X}); convert the file, for example with iconv"
    try:
        value = json.loads(text.removeprefix(BOM) if first else text)
    except (ValueError, RecursionError) as error:
        return {}, f"the line is not JSON ({error}); expected one object"
    if not isinstance(value, dict):
        return {}, f"the line is a JSON {type(value).__name__}, expected an object"
    return value, ""


@dataclass(frozen=True)
class Separated:
    """CSV or TSV in UTF-8; the first row has the columns' names. Empty rows are left out."""

    path: Path
    columns: Sequence[str]

    @classmethod
    def open(cls, path: Path) -> Separated:
        with read_errors(path):
            header = next(read_rows(path), None)
        if header is None:
            raise InputError(f"{path} is empty; expected a first row with the columns' names")
        return cls(path, header[1])

    def lines(self) -> Iterator[Line]:
        with read_errors(self.path):
            for number, (row, fields) in enumerate(read_rows(self.path), -1):
                if number >= 0:  # the first one has the columns' names
                    values = dict(zip(self.columns, fields, strict=True))
                    yield Line(number, at_line(self.path, row), values, sum(map(len, fields)) + 1)

    def facts(self) -> Facts:
        lines = size = 0
        for line in self.lines():
            lines, size = lines + 1, size + line.size
        return Facts(hash_of(self.path), lines, size)


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
