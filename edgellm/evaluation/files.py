"""Files of data, record by record: text, JSON lines, JSON, SQuAD's own, CSV and TSV. What is wrong with one is an
InputError that names the line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.records import TEXT, Record
from edgellm.text.rows import BOM, at_line, not_utf8, read_rows, utf8_lines


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
        raise not_utf8(path, data.count(b"\n", 0, error.start) + 1, data[error.start]) from error


def read_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(utf8_lines(path), 1):
        yield Record({TEXT: line.rstrip("\r\n")}, at_line(path, number))


def read_json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(utf8_lines(path), 1):
        if line.strip():
            place = at_line(path, number)
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


def _separated(path: Path) -> Iterator[Record]:
    names: list[str] | None = None
    for begin, row in read_rows(path):
        if names is None:
            names = row
        else:
            yield Record(dict(zip(names, row, strict=True)), at_line(path, begin))


READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": _separated,
    ".tsv": _separated,
}


def _squad(paragraphs: list[Any], place: str) -> Iterator[Record]:
    for paragraph in paragraphs:
        values = _object(paragraph, place)
        if "context" not in values or not isinstance(values.get("qas"), list):
            raise InputError(f"{place}: a paragraph of SQuAD has a context and qas, found {', '.join(values)}")
        for question in values["qas"]:
            asked = _object(question, place)
            yield Record({**asked, "context": values["context"]}, f"{place}, question {asked.get('id')}")


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}); expected one object per line") from error


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f'{place}: a JSON {type(value).__name__}, expected an object such as {{"text": "..."}}')
    return value
