"""Files in UTF-8, line by line, and CSV and TSV, row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from edgellm.errors import InputError

BOM = "\ufeff"
DIALECTS = {".csv": csv.excel, ".tsv": csv.excel_tab}


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line in which each row begins, and its fields: of the first row the columns' names, of each other one as many
    as these. Empty rows are left out. Raises InputError, which names the line, or OSError."""
    names: list[str] | None = None
    # Old Macs end lines with \r alone.
    lines = (part for line in utf8_lines(path) for part in io.StringIO(line, newline=""))
    rows = csv.reader(lines, DIALECTS[path.suffix.lower()], strict=True)
    while True:
        begin = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(
                f"{at_line(path, begin)}: not a row of CSV ({error}); quote fields that hold quotes or line breaks, or "
                "use JSON lines"
            ) from error
        if row is None:
            return
        if not row:
            continue
        if names is None:
            names = row = _header(row, at_line(path, begin))
        if len(row) != len(names):
            raise InputError(
                f"{at_line(path, begin)}: {len(row)} fields, expected {len(names)} as in the first row "
                f"({', '.join(names)})"
            )
        yield begin, row


def _header(row: list[str], where: str) -> list[str]:
    names = [name.strip() for name in row]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: two columns are named {twice!r}; the first row has the columns' names")
    return names


def utf8_lines(path: Path) -> Iterator[str]:
    """The file's lines, with their ends. Raises InputError where one is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise not_utf8(path, number, line[error.start]) from error
            yield text.removeprefix(BOM) if number == 1 else text


def not_utf8(path: Path, line: int, byte: int) -> InputError:
    return InputError(
        f"{at_line(path, line)}: not UTF-8 (byte 0x{byte:02X}); convert the file first, for example with iconv"
    )


def at_line(path: Path, line: int) -> str:
    return f"{path}, line {line}"
