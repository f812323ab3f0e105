"""Files of data, record by record: text, JSON lines, JSON, SQuAD's own, CSV and TSV. What is wrong with one is an
InputError that names the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.records import TEXT, Record

BOM = "\ufeff"


@dataclass(frozen=True)
class File:
    path: Path
    read: Callable[[Path], Iterator[Record]]

    def __iter__(self) -> Iterator[Record]:
        try:
            if self.path.exists() and not self.path.is_file():
                raise InputError(f"{self.path} is no file; data is read twice, so give a file and no folder or pipe")
            yield from self.read(self.path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{self.path}: cannot be read ({reason}); give a file of text, JSON or CSV") from error


def open_file(path: Path, *, text_is_one: bool) -> File:
    """The records of a file whose name says its format. Text is a record per line or, where `text_is_one`, a single
    one."""
    suffix = path.suffix.lower()
    if suffix in READERS:
        return File(path, READERS[suffix])
    return File(path, read_whole if text_is_one else read_lines)


def read_whole(path: Path) -> Iterator[Record]:
    """One record: the file as it is."""
    data = path.read_bytes()
    try:
        yield Record({TEXT: data.decode("utf-8").removeprefix(BOM)}, str(path))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data.count(b"\n", 0, error.start) + 1, data[error.start]) from error


def read_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), 1):
        yield Record({TEXT: line.rstrip("\r\n")}, _place(path, number))


def read_json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            place = _place(path, number)
            yield Record(_object(_parsed(line, place), place), place)


def read_json(path: Path) -> Iterator[Record]:
    """An array of objects, {"data": such an array}, SQuAD's own layout, or JSON lines by another name."""
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        yield from read_json_lines(path)
        return
    if isinstance(content, Mapping) and isinstance(content.get("data"), list):
        content = content["data"]
    entries = content if isinstance(content, list) else [content]
    for number, entry in enumerate(entries, 1):
        place = f"{path}, entry {number}"
        values = _object(entry, place)
        if isinstance(values.get("paragraphs"), list):
            yield from _squad(values["paragraphs"], place)
        else:
            yield Record(values, place)


READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": lambda path: _separated(path, csv.excel),
    ".tsv": lambda path: _separated(path, csv.excel_tab),
}


def _separated(path: Path, dialect: type[csv.Dialect]) -> Iterator[Record]:
    """The first row has the names of the columns."""
    rows = csv.reader(_lines(path), dialect, strict=True)
    names: list[str] | None = None
    while True:
        begin = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(
                f"{_place(path, begin)}: not a row of CSV ({error}); quote fields that hold quotes or line breaks, or "
                "use JSON lines"
            ) from error
        if row is None:
            return
        if not row:
            continue
        if names is None:
            names = _header(row, path)
        elif len(row) != len(names):
            raise InputError(
                f"{_place(path, begin)}: {len(row)} fields, expected {len(names)} as in the first row "
                f"({', '.join(names)})"
            )
        else:
            yield Record(dict(zip(names, row, strict=True)), _place(path, begin))


def _header(row: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in row]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{_place(path, 1)}: two columns are named {twice!r}; the first row has the columns' names")
    return names


def _squad(paragraphs: list[Any], place: str) -> Iterator[Record]:
    for paragraph in paragraphs:
        values = _object(paragraph, place)
        if "context" not in values or not isinstance(values.get("qas"), list):
            raise InputError(f"{place}: a paragraph of SQuAD has a context and qas, found {', '.join(values)}")
        for question in values["qas"]:
            asked = _object(question, place)
            yield Record({**asked, "context": values["context"]}, f"{place}, question {asked.get('id')}")


def _lines(path: Path) -> Iterator[str]:
    """The file's lines, with their ends. Raises InputError where one is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, line[error.start]) from error
            yield text.removeprefix(BOM) if number == 1 else text


def _not_utf8(path: Path, line: int, byte: int) -> InputError:
    return InputError(
        f"{_place(path, line)}: not UTF-8 (byte 0x{byte:02X}); convert the file first, for example with iconv"
    )


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}); expected one object per line") from error


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f'{place}: a JSON {type(value).__name__}, expected an object such as {{"text": "..."}}')
    return value


def _place(path: Path, line: int) -> str:
    return f"{path}, line {line}"
