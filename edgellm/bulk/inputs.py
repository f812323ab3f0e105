"""The files that a batch reads, line by line: JSON lines, CSV and TSV; Parquet is in `parquet.py`.

A file is read as often as it is iterated. One line that is wrong is that line's own problem; what is wrong with the
whole, such as a row of CSV that cannot be told from the next, is found when the file is first looked at.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgellm.bulk.lines import Line
from edgellm.errors import InputError, OptionError, system_errors

BOM = "\ufeff"
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
DIALECTS = {".csv": csv.excel, ".tsv": csv.excel_tab}


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
                    yield Line(number, place(self.path, row), values, len(raw), problem)
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
            header = next(_rows(path), None)
        if header is None:
            raise InputError(f"{path} is empty; expected a first row with the columns' names")
        columns = header[1]
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path}: two columns are named {twice!r}; the first row has the columns' names")
        return cls(path, columns)

    def lines(self) -> Iterator[Line]:
        with read_errors(self.path):
            rows = _rows(self.path)
            next(rows, None)
            for number, (row, fields) in enumerate(rows):
                if len(fields) != len(self.columns):
                    raise InputError(
                        f"{place(self.path, row)}: {len(fields)} fields, expected {len(self.columns)} as in the first "
                        f"row ({', '.join(self.columns)})"
                    )
                values = dict(zip(self.columns, fields, strict=True))
                yield Line(number, place(self.path, row), values, sum(map(len, fields)) + 1)

    def facts(self) -> Facts:
        lines = size = 0
        for line in self.lines():
            lines, size = lines + 1, size + line.size
        return Facts(hash_of(self.path), lines, size)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, and the line in which each begins."""
    with path.open("r", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, DIALECTS[path.suffix.lower()], strict=True)
        while True:
            begin = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise InputError(
                    f"{place(path, begin)}: not a row of CSV ({error}); quote fields that hold quotes or line breaks, "
                    "or use JSON lines"
                ) from error
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{place(path, begin)} or later: not UTF-8; convert the file first, for example with iconv"
                ) from error
            if row is None:
                return
            if row:
                yield begin, row


def place(path: Path, line: int) -> str:
    return f"{path}, line {line}"


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
