"""The output of a batch, in the order of the input: made of the journal when all lines are done, as a whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from edgellm.bulk.forms import Form
from edgellm.bulk.inputs import Input, kind_of
from edgellm.bulk.journal import as_json
from edgellm.bulk.lines import Line, Outcome
from edgellm.bulk.whole import written_whole
from edgellm.errors import OptionError
from edgellm.text.rows import DIALECTS


def check_output(path: Path, source: Input, form: Form) -> None:
    """Raises OptionError where the output's name asks for what cannot be made of the input."""
    if path.resolve() == source.path.resolve():
        raise OptionError(f"{path} is input and output; give the output another name")
    kind, own = kind_of(path), kind_of(source.path)
    if kind not in ("jsonl", own) or (form.columns is None and kind != "jsonl"):
        raise OptionError(
            f"{path} would be {kind}, and {source.path} is {own}; expected an output of the same kind, or JSON lines"
        )


def write_output(path: Path, source: Input, form: Form, outcome: Callable[[Line], Outcome]) -> None:
    """Raises BatchError where it cannot be written, or where the input has changed."""
    writers = {"jsonl": _json_lines, "csv": _separated, "parquet": _parquet}
    with written_whole(path) as file:
        writers[kind_of(path)](file, path, source, form, outcome)


def _json_lines(file: BinaryIO, path: Path, source: Input, form: Form, outcome: Callable[[Line], Outcome]) -> None:
    """A line's own columns stay as they are, also where a line that failed for that has one of the answers'."""
    for line in source.lines():
        row = form.row(line, outcome(line))
        if form.columns is not None:
            row = {**line.values, **{name: value for name, value in row.items() if name not in line.values}}
        file.write(as_json(row) + b"\n")


def _separated(file: BinaryIO, path: Path, source: Input, form: Form, outcome: Callable[[Line], Outcome]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text, DIALECTS[path.suffix.lower()], lineterminator="\n")
    rows.writerow([*(source.columns or ()), *(form.columns or ())])
    for line in source.lines():
        rows.writerow([*line.values.values(), *map(_cell, form.row(line, outcome(line)).values())])
    text.detach()


def _parquet(file: BinaryIO, path: Path, source: Input, form: Form, outcome: Callable[[Line], Outcome]) -> None:
    from edgellm.bulk.parquet import ParquetInput

    assert isinstance(source, ParquetInput)
    source.write_with(file, form.columns or {}, lambda line: form.row(line, outcome(line)))


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value
