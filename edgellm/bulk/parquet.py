"""Parquet, by pyarrow: rows in, and rows with more columns out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from edgellm.bulk.inputs import Facts, hash_of, read_errors
from edgellm.bulk.lines import Line
from edgellm.errors import InputError, MissingDependencyError

ROWS = 256  # that are in memory at once


@dataclass(frozen=True)
class ParquetInput:
    path: Path
    columns: Sequence[str]

    @classmethod
    def open(cls, path: Path) -> ParquetInput:
        """Raises MissingDependencyError or InputError."""
        with _opened(path) as file:
            return cls(path, tuple(file.schema_arrow.names))

    def lines(self) -> Iterator[Line]:
        number = 0
        for batch in self._batches():
            for values in batch.to_pylist():
                yield Line(number, f"{self.path}, row {number + 1}", values, 1)
                number += 1

    def facts(self) -> Facts:
        with read_errors(self.path), _opened(self.path) as file:
            rows = int(file.metadata.num_rows)
        return Facts(hash_of(self.path), rows, rows)

    def write_with(self, file: BinaryIO, kinds: Mapping[str, str], more: Callable[[Line], Mapping[str, Any]]) -> None:
        """Write the rows with more columns behind them. kinds: "text", "number" or "vector" by column. more: a line's
        values in them."""
        arrow = _arrow()
        with _opened(self.path) as opened:
            schema = opened.schema_arrow
        for name, kind in kinds.items():
            schema = schema.append(arrow.field(name, _type(kind)))
        lines = self.lines()
        with _parquet().ParquetWriter(file, schema) as writer:
            for batch in self._batches():
                rows = [more(line) for line in islice(lines, batch.num_rows)]
                added = [column_of(kind, [row[name] for row in rows]) for name, kind in kinds.items()]
                writer.write_batch(arrow.record_batch([*batch.columns, *added], schema=schema))

    def _batches(self) -> Iterator[Any]:
        with read_errors(self.path), _opened(self.path) as file:
            yield from file.iter_batches(batch_size=ROWS)


def column_of(kind: str, values: Sequence[Any]) -> Any:
    """A pyarrow.Array. kind: "text", "number" or "vector"."""
    return _arrow().array(values, _type(kind))


def _type(kind: str) -> Any:
    arrow = _arrow()
    return {"text": arrow.string(), "number": arrow.float64(), "vector": arrow.list_(arrow.float32())}[kind]


def _opened(path: Path) -> Any:
    parquet, arrow = _parquet(), _arrow()
    try:
        return parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise InputError(f"{path} is not Parquet ({error})") from error


def _arrow() -> Any:
    """The library; it takes a while to import, so only those who have Parquet wait for it."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(
            f"Parquet needs pyarrow, which is not installed ({error}); run `pip install edgellm[batch]`, or use JSON "
            "lines or CSV"
        ) from error
    return pyarrow


def _parquet() -> Any:
    _arrow()
    import pyarrow.parquet

    return pyarrow.parquet
