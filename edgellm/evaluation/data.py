"""The data that a package is judged on: text, JSON lines, JSON, CSV and TSV files, or Python objects.

A data set is read as often as it is iterated, one record at a time, and says of each record where it is from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from edgellm.errors import InputError, OptionError, nearest

TEXT = "text"  # the column that plain text makes
TARGET = "target"  # the column that target files make
BOM = "\ufeff"


@dataclass(frozen=True)
class Record:
    """Values by column. `place`: file and line, for messages."""

    values: Mapping[str, Any]
    place: str


Data = Iterable[Record]
DataLike = str | PathLike[str] | Sequence[str | Mapping[str, Any]]


def open_data(source: DataLike, *, targets: Sequence[str | PathLike[str]] = (), text_is_one: bool = False) -> Data:
    """The records of a file, or of a list of texts or mappings.

    The file's name says its format: .jsonl, .json, .csv, .tsv; all others are text, a record per line or, where
    `text_is_one`, a single one. `targets`: files of text with a line for each record, the reference translations.
    Raises InputError, while iterating too.
    """
    if isinstance(source, str | PathLike):
        data: Data = _of_file(Path(source), text_is_one=text_is_one and not targets)
    elif isinstance(source, Sequence) and not isinstance(source, bytes):
        data = Objects(source)
    else:
        raise InputError(f"data is a file or a list of records, found {type(source).__name__}")
    return WithTargets(data, tuple(Path(target) for target in targets)) if targets else data


@dataclass(frozen=True)
class Objects:
    """Records from Python: a text, or a mapping from columns to values, each."""

    items: Sequence[str | Mapping[str, Any]]

    def __iter__(self) -> Iterator[Record]:
        for number, item in enumerate(self.items, 1):
            place = f"record {number}"
            if not isinstance(item, str | Mapping):
                raise InputError(f"{place} is a {type(item).__name__}, expected a text or a mapping")
            yield Record({TEXT: item} if isinstance(item, str) else item, place)


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


@dataclass(frozen=True)
class WithTargets:
    """Records with what is in the same line of each of the target files, as a list in one more column."""

    data: Data
    files: Sequence[Path]

    def __iter__(self) -> Iterator[Record]:
        targets = [iter(File(path, read_lines)) for path in self.files]
        last = "the data"
        for record in self.data:
            last = record.place
            found = [next(lines, None) for lines in targets]
            for path, line in zip(self.files, found, strict=True):
                if line is None:
                    raise InputError(f"{path} has fewer lines than the data: none for {record.place}")
            yield Record({**record.values, TARGET: [line.values[TEXT] for line in found if line]}, record.place)
        for lines in targets:
            if (left := next(lines, None)) is not None:
                raise InputError(f"{left.place}: more lines than the data has, which ends with {last}")


@dataclass(frozen=True)
class Joined:
    """The texts of all records as one record, with an empty line between them."""

    data: Data
    columns: Columns

    def __iter__(self) -> Iterator[Record]:
        places, texts = [], []
        for record in self.data:
            places.append(record.place)
            texts.append(self.columns.text(record, TEXT, empty=True))
        if texts:
            (name,) = self.columns.names[TEXT]
            yield Record({name: "\n\n".join(texts)}, f"{places[0]} to {places[-1]}")


def _of_file(path: Path, *, text_is_one: bool) -> File:
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


def read_csv(path: Path) -> Iterator[Record]:
    return _separated(path, csv.excel)


def read_tsv(path: Path) -> Iterator[Record]:
    return _separated(path, csv.excel_tab)


READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
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
    """With their ends. Raises InputError where one is not UTF-8."""
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


@dataclass(frozen=True)
class Columns:
    """Where a record has what an evaluation asks for. `names`: columns by role, several for a role whose values are
    taken together; `fallback`: roles that the first of these columns fills where its own is not there."""

    names: Mapping[str, tuple[str, ...]]

    @classmethod
    def create(cls, given: Mapping[str, str | Sequence[str]] | None = None) -> Columns:
        """`given`: columns by role, on top of those that are named as the role. Raises OptionError."""
        names = dict(ROLES)
        for role, columns in (given or {}).items():
            if role not in ROLES:
                raise OptionError(f"no evaluation asks for a column {role!r}; {nearest(role, ROLES)}")
            names[role] = (columns,) if isinstance(columns, str) else tuple(columns)
        return cls(names)

    def has(self, record: Record, role: str) -> bool:
        return all(_found(record.values, name) is not MISSING for name in self._columns(record, role))

    def value(self, record: Record, role: str) -> Any:
        """What the record has for a role; a list of the values of several columns. Raises InputError."""
        names = self._columns(record, role)
        values = [_found(record.values, name) for name in names]
        for name, value in zip(names, values, strict=True):
            if value is MISSING:
                raise InputError(
                    f"{record.place}: no column {name!r}, found {', '.join(map(str, record.values)) or 'none'}; say "
                    f"which one is the {role} with --column {role}=NAME"
                )
        return values[0] if len(values) == 1 else values

    def text(self, record: Record, role: str, *, empty: bool = False) -> str:
        """Raises InputError where it is not text, or where it is empty and not allowed to be."""
        value = self.value(record, role)
        if not isinstance(value, str):
            raise InputError(f"{record.place}: the {role} is a {type(value).__name__}, expected text")
        if not empty and not value.strip():
            raise InputError(f"{record.place}: the {role} is empty")
        return value

    def texts(self, record: Record, role: str) -> list[str]:
        """A text, or a list of texts, of which there is one at least."""
        value = self.value(record, role)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{record.place}: the {role} is no text and no list of texts")
        return texts

    def _columns(self, record: Record, role: str) -> tuple[str, ...]:
        names = self.names[role]
        instead = INSTEAD.get(role)
        if instead is None or names != ROLES[role] or _found(record.values, names[0]) is not MISSING:
            return names
        return instead if _found(record.values, instead[0]) is not MISSING else names


ROLES: Mapping[str, tuple[str, ...]] = {
    role: (role,)
    for role in ("text", "text_pair", "source", "target", "label", "tokens", "tags", "question", "context", "answers")
}
INSTEAD: Mapping[str, tuple[str, ...]] = {"source": ("text",)}
MISSING = object()


def _found(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column; "translation.de" is also the column de of an object in the column translation."""
    if name in values:
        return values[name]
    first, dot, rest = name.partition(".")
    inner = values.get(first)
    return _found(inner, rest) if dot and isinstance(inner, Mapping) else MISSING
