"""The data that a package is judged on: files, Python objects, or English text that every Python carries.

A data set is read as often as it is iterated, one record at a time, and says of each record where it is from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.files import File, open_file, read_lines
from edgellm.evaluation.records import TARGET, TEXT, Columns, Data, Record

NAME = "built-in English text"
TOPICS = ("typesmapping", "specialnames", "exceptions", "execmodel", "formatstrings", "types", "class", "try")

DataLike = str | PathLike[str] | Sequence[str | Mapping[str, Any]]


def open_data(source: DataLike, *, targets: Sequence[str | PathLike[str]] = (), text_is_one: bool = False) -> Data:
    """The records of a file, or of a list of texts or mappings.

    The file's name says its format: .jsonl, .json, .csv, .tsv; all others are text, a record per line or, where
    `text_is_one`, a single one. `targets`: files of text with a line for each record, the reference translations.
    Raises InputError, while iterating too.
    """
    if isinstance(source, str | PathLike):
        data: Data = open_file(Path(source), text_is_one=text_is_one and not targets)
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
    """One record with the texts of all records, an empty line between them."""

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


def builtin_text() -> list[str]:
    """Topics of the language reference, which follow the version of Python: those that an export is judged by, not
    those of its calibration. Raises InputError where this Python was installed without them."""
    try:
        import pydoc_data.topics
    except ImportError as error:
        raise InputError("this Python lacks its documentation, the built-in text; give a file with --data") from error
    return [pydoc_data.topics.topics[topic] for topic in TOPICS if topic in pydoc_data.topics.topics]
