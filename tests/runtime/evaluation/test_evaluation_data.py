"""Data for `edgellm eval`: files in every format, columns, and what is wrong with them in one line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import InputError, OptionError
from edgellm.evaluation.answers import answers_of
from edgellm.evaluation.data import Joined, open_data
from edgellm.evaluation.label_evaluator import Labels
from edgellm.evaluation.predictions import predictions_file
from edgellm.evaluation.records import Columns, Record

ROWS = [{"text": "Grüße, 'all'\nof \"you\"", "label": "a"}, {"text": "x, y", "label": "b"}]
CSV = 'text,label\n"Grüße, \'all\'\nof ""you""",a\n"x, y",b\n'
TSV = "text\tlabel\nx, y\tb\n"
SQUAD = {
    "version": "1.1",
    "data": [
        {"title": "t", "paragraphs": [{"context": "c1", "qas": [
            {"id": "1", "question": "q1", "answers": [{"text": "a", "answer_start": 0}]},
            {"id": "2", "question": "q2", "answers": [], "is_impossible": True}]}]},
    ],
}  # fmt: skip

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return made


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.jsonl", lines(ROWS)),
        ("data.ndjson", "\n" + lines(ROWS).replace("\n", "\r\n\r\n")),
        ("data.json", json.dumps(ROWS)),
        ("data.json", json.dumps({"version": 1, "data": ROWS}, indent=1)),
        ("data.json", lines(ROWS)),
        ("data.csv", CSV),
        ("data.CSV", "\ufeff" + CSV.replace("\n", "\r\n").replace("all'\r\n", "all'\n")),
    ],
    ids=["jsonl", "ndjson with empty lines", "json", "json data", "json lines as json", "csv", "csv of a spreadsheet"],
)
def test_formats(write: Write, name: str, content: str) -> None:
    data = open_data(write(name, content))
    assert [record.values for record in data] == ROWS
    assert [record.values for record in data] == ROWS, "data can be read again"


def test_tab_separated(write: Write) -> None:
    assert [record.values for record in open_data(write("data.tsv", TSV))] == ROWS[1:]


def test_text(write: Write) -> None:
    path = write("data.txt", "\ufeffeins\r\n\nzwei\n")
    assert [record.values["text"] for record in open_data(path)] == ["eins", "", "zwei"]
    assert [record.values["text"] for record in open_data(path, text_is_one=True)] == ["eins\r\n\nzwei\n"]


def test_squads_own_files(write: Write) -> None:
    records = list(open_data(write("dev.json", json.dumps(SQUAD))))
    assert [(r.values["question"], r.values["context"]) for r in records] == [("q1", "c1"), ("q2", "c1")]
    assert [answers_of(r.values["answers"], r.place) for r in records] == [["a"], []]
    assert records[1].place.endswith("dev.json, entry 1, question 2")


def test_objects() -> None:
    assert [record.values for record in open_data(["a", {"source": "b"}])] == [{"text": "a"}, {"source": "b"}]


def test_target_files(write: Write) -> None:
    files = [write("one.txt", "A\nB\n"), write("two.txt", "C\nD\n")]
    records = open_data(write("source.txt", "a\nb\n"), targets=files)
    assert [record.values for record in records] == [
        {"text": "a", "target": ["A", "C"]},
        {"text": "b", "target": ["B", "D"]},
    ]


def test_places_are_lines_of_the_file(write: Write) -> None:
    """Also where a field of CSV has line breaks, and behind empty lines."""
    assert [r.place.split(", ")[1] for r in open_data(write("data.csv", CSV))] == ["line 2", "line 4"]
    assert [r.place.split(", ")[1] for r in open_data(write("data.jsonl", '\n\n{"a": 1}\n'))] == ["line 3"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.jsonl", '{"text": "a"}\n{"text": \n', "data.jsonl, line 2: not JSON"),
        ("data.jsonl", '{"text": "a"}\n["a"]\n', "data.jsonl, line 2: a JSON list, expected an object"),
        ("data.jsonl", "[" * 100_000, "data.jsonl, line 1: not JSON"),
        ("data.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"line 2: not UTF-8 \(byte 0xE9\); convert the file"),
        ("data.json", '[{"text": "a"}, 3]', "data.json, entry 2: a JSON int, expected an object"),
        ("data.json", '[{"text": "a"},', "data.json, line 1: not JSON"),
        ("data.json", json.dumps([{"paragraphs": [{"qas": []}]}]), "entry 1: a paragraph of SQuAD has a context"),
        ("data.csv", "a,b\n1,2\n1,2,3\n", r"data.csv, line 3: 3 fields, expected 2 as in the first row \(a, b\)"),
        ("data.csv", "a,a\n1,2\n", "data.csv, line 1: two columns are named 'a'"),
        ("data.csv", 'a,b\n1,"2\n', "data.csv, line 2: not a row of CSV"),
        ("data.csv", "a,b\n1," + "x" * 200_000, "data.csv, line 2: not a row of CSV.*use JSON lines"),
        ("data.csv", b"a\n\xff\n", "data.csv, line 2: not UTF-8"),
        ("data.txt", b"a\nb\xff\n", "data.txt, line 2: not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file(write: Write, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(open_data(write(name, content)))


VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda v: st.lists(v, max_size=3), max_leaves=5)
ROW = st.dictionaries(st.sampled_from(["text", "data", "paragraphs", "qas", "context"]), VALUES, max_size=3)


@given(
    st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".txt"]),
    st.binary(max_size=60) | st.lists(ROW, max_size=3).map(lambda rows: json.dumps(rows).encode()),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_records_or_an_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    for text_is_one in (False, True):
        with contextlib.suppress(InputError):
            assert all(isinstance(record.values, Mapping) for record in open_data(path, text_is_one=text_is_one))


def test_a_whole_text_that_is_not_utf8(write: Write) -> None:
    with pytest.raises(InputError, match=r"data\.txt, line 3: not UTF-8"):
        list(open_data(write("data.txt", "a\nb\nü".encode("latin-1")), text_is_one=True))


@pytest.mark.parametrize(
    ("lengths", "message"), [((3, 2), "t.txt has fewer lines than the data: none for .*s.txt, line 3"),
                             ((2, 3), "t.txt, line 3: more lines than the data has, which ends with .*s.txt, line 2")]
)  # fmt: skip
def test_unequal_lengths(write: Write, lengths: tuple[int, int], message: str) -> None:
    source, target = (write(name, "x\n" * count) for name, count in zip(("s.txt", "t.txt"), lengths, strict=True))
    with pytest.raises(InputError, match=message):
        list(open_data(source, targets=[target]))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read \(No such file"):
        list(open_data(tmp_path / "none.jsonl"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="is no file; data is read twice"):
            list(open_data(path))


@pytest.mark.parametrize("data", [b"abc", 3])
def test_what_is_no_data(data: Any) -> None:
    with pytest.raises(InputError, match="data is a file or a list of records"):
        open_data(data)
    with pytest.raises(InputError, match="record 2 is a int"):
        list(open_data(["a", 3]))  # type: ignore[list-item]


RECORD = Record(
    {"de": "Hallo", "translation": {"en": "Hello"}, "empty": " ", "number": 3, "en2": "Hi", "surrogate": "\ud800"},
    "f, line 7",
)


@pytest.mark.parametrize(
    ("given", "value"),
    [("de", "Hallo"), ("translation.en", "Hello"), (["translation.en", "en2"], ["Hello", "Hi"])],
)
def test_columns_by_another_name(given: Any, value: Any) -> None:
    columns = Columns.create({"target": given})
    assert columns.has(RECORD, "target")
    assert columns.value(RECORD, "target") == value
    assert columns.texts(RECORD, "target") == ([value] if isinstance(value, str) else value)


def test_a_source_may_be_called_text() -> None:
    columns = Columns.create()
    assert columns.text(Record({"text": "a"}, ""), "source") == "a"
    assert columns.text(Record({"text": "a", "source": "b"}, ""), "source") == "b"
    assert not Columns.create({"source": "x"}).has(Record({"text": "a"}, ""), "source")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("en", "f, line 7: no column 'en', found de, translation, .*--column text=NAME"),
        ("translation.fr", "f, line 7: no column 'translation.fr'"),
        ("empty", "f, line 7: the text is empty"),
        ("number", "f, line 7: the text is a int, expected text"),
        ("surrogate", r"f, line 7: the text holds a lone surrogate \(U\+D800"),
    ],
)
def test_what_is_wrong_with_a_column(column: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Columns.create({"text": column}).text(RECORD, "text")


def test_what_is_wrong_with_a_list_of_texts() -> None:
    for value in ([], ["a", 3], 3, None):
        with pytest.raises(InputError, match="the target is no text and no list of texts"):
            Columns.create().texts(Record({"target": value}, ""), "target")


def test_a_role_that_there_is_not() -> None:
    with pytest.raises(OptionError, match="no evaluation asks for a column 'sorce'; did you mean 'source'"):
        Columns.create({"sorce": "de"})


def test_texts_joined() -> None:
    (record,) = Joined(open_data(["a", "", "b"]), Columns.create())
    assert record.values["text"] == "a\n\n\n\nb"
    assert list(Joined([], Columns.create())) == []


LABELS = ["NEGATIVE", "POSITIVE", "7"]


@pytest.mark.parametrize(
    ("value", "number"), [("POSITIVE", 1), (0, 0), ("0", 0), ("good", 1), ("7", 2), (2, 2), (-1, 0)]
)
def test_labels(value: Any, number: int) -> None:
    assert Labels.create(LABELS, {"good": "POSITIVE", "-1": "NEGATIVE"}).of(value, "") == number


@pytest.mark.parametrize("value", ["positive", 3, -1, True, None, 1.0, ["POSITIVE"], "", "²"])
def test_labels_that_the_model_does_not_know(value: Any) -> None:
    with pytest.raises(InputError, match=r"f, line 2: the label .* is none of the model's \(NEGATIVE, POSITIVE, 7\)"):
        Labels.create(LABELS, None).of(value, "f, line 2")


def test_a_label_renamed_to_none() -> None:
    with pytest.raises(OptionError, match="the model has no label 'POSITIV'; did you mean 'POSITIVE'"):
        Labels.create(LABELS, {"good": "POSITIV"})


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ({"text": ["a", "b"], "answer_start": [0, 1]}, ["a", "b"]),
        ({"text": [], "answer_start": []}, []),
        ([{"text": "a"}], ["a"]),
        ("a", ["a"]),
        ("", []),
        (["a"], ["a"]),
    ],
)
def test_answers(value: Any, answers: list[str]) -> None:
    assert answers_of(value, "") == answers


@pytest.mark.parametrize("value", [None, 3, [3], {"texts": ["a"]}])
def test_what_is_no_answer(value: Any) -> None:
    with pytest.raises(InputError, match="f, line 1: the answers are no text"):
        answers_of(value, "f, line 1")


def test_predictions_are_there_when_all_are(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text("before")
    with pytest.raises(KeyError), predictions_file(path) as write_line:  # noqa: PT012
        write_line({"a": 1})
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "before"
    with predictions_file(path) as write_line:
        write_line({"a": "ü"})
        write_line({"a": 2})
    assert path.read_text() == '{"a": "ü"}\n{"a": 2}\n'
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_predictions_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="predictions cannot be written"), predictions_file(tmp_path / "no" / "where"):
        pass
