"""Rows are put into an engine and taken out while others go on: what each gets is what it would get alone."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgellm
from concat_directory import Flaws, write_directory
from edgellm.engines.in_place import decoder as in_place
from edgellm.engines.in_place.device_cache import DeviceCache
from edgellm.engines.in_place.host_cache import FEW_ROWS
from row_driver import Driven, Row, begin_and_end_empty, come_and_go, step_by_step
from tiny_package import TinyConfig, reference_logits

TINY, LONG = TinyConfig(), TinyConfig(long_from=20)
HALF = TinyConfig(dtype="float16", target="cuda")
FLAWS = {"counts padding": Flaws(counts_padding=True), "shares a scale": Flaws(shares_scale=True)}
OWN = {"host": (TINY, "cpu"), "two tables": (LONG, "cpu"), "device": (TINY, "device")}
PackageMaker = Callable[[TinyConfig], Path]
KINDS = [*OWN, "concat", *FLAWS]


def in_one_piece(config: TinyConfig) -> Callable[[Row], np.ndarray]:
    return lambda row: reference_logits(config, row.tokens)[-1]


@pytest.fixture
def drive(make_package: PackageMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Driven]:
    """A fresh engine of a kind. "device": with a cache that ONNX Runtime owns, in main memory here."""

    def make(kind: str) -> Driven:
        if kind in OWN:
            config, device = OWN[kind]
            if device == "device":
                monkeypatch.setattr(
                    in_place, "open_cache", lambda layout, most, _, chunk: DeviceCache(layout, most, "cpu", chunk)
                )
            model = edgellm.load(make_package(config), threads=1, prefill_chunk=5)
            return Driven(model.new_engine(), in_one_piece(config))
        path = tmp_path / "toy"
        if not path.exists():
            write_directory(path, FLAWS.get(kind, Flaws()))
        model = edgellm.load(path, threads=1, prefill_chunk=5)
        return Driven(model.new_engine(), step_by_step(model.new_engine()))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_late_and_go_early(kind: str, drive: Callable[[str], Driven]) -> None:
    come_and_go(drive(kind), (3, 17), 30, 1, 12, 18)


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_begins_and_ends_empty(kind: str, drive: Callable[[str], Driven]) -> None:
    begin_and_end_empty(drive(kind), 7)


@pytest.mark.parametrize("kind", OWN)
def test_room_is_made_for_a_row_that_is_longer_than_the_others(kind: str, drive: Callable[[str], Driven]) -> None:
    driven = drive(kind)
    driven.insert(3, headroom=0)
    driven.decode(2)
    cache = driven.engine._cache
    assert cache.capacity == 64
    driven.insert(70, headroom=0)
    assert cache.capacity == 96
    driven.decode(3)
    driven.drop(1)
    before = cache.nbytes
    driven.insert(20)
    driven.decode(2)
    rows = 2 if kind == "device" else FEW_ROWS
    assert cache.nbytes == rows * 96 * cache.layout.bytes_per_token()
    assert kind == "device" or cache.nbytes == before, "the memory of the row that went serves the one that came"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [(), (3,), (3, 17)])
def test_a_row_that_is_not_read_to_its_end_leaves_the_others(
    kind: str, before: Sequence[int], drive: Callable[[str], Driven]
) -> None:
    driven = drive(kind)
    if before:
        driven.prefill(*before)
        driven.decode()
    reading = driven.engine.read(np.array(driven.row(12).tokens))
    if next(reading) is None:
        reading.close()
        assert driven.engine.rows == len(before)
        driven.insert(12)
        driven.decode(3)
    else:
        assert kind not in OWN, "those are read in pieces"


def test_others_go_on_and_leave_between_the_pieces_of_a_row(drive: Callable[[str], Driven]) -> None:
    driven = drive("host")
    driven.prefill(4, 9, 6)
    reading = driven.engine.read(np.array((row := driven.row(23)).tokens))
    pieces = []
    for piece in reading:
        pieces.append(None if piece is None else piece.copy())
        if piece is None and len(driven.rows) > 1:
            driven.decode()
            driven.engine.reorder(np.array([*range(len(driven.rows) - 1), len(driven.rows)]))
            driven.rows.pop()
    assert [piece is None for piece in pieces] == [True] * 4 + [False]
    driven.check(pieces[-1], [row])
    driven.rows.append(row)
    driven.decode(3)


@pytest.mark.parametrize("lengths", [(23,), (4, 9, 23)])
def test_keys_and_values_of_one_row_begin_another(lengths: Sequence[int], drive: Callable[[str], Driven]) -> None:
    driven = drive("host")
    driven.prefill(*lengths)
    first, last = (driven.engine.taken(len(lengths) - 1, start, stop) for start, stop in ((0, 8), (8, 15)))
    row = Row([*driven.rows[-1].tokens[:15], *driven.row(8).tokens], 23)
    *pieces, logits = driven.engine.read(np.array(row.tokens), known=[first, last])
    assert pieces == [None], "two pieces of at most five tokens, not five"
    driven.check(logits, [row])
    driven.rows.append(row)
    driven.decode(3)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(1, 40)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
        st.tuples(st.just("decode"), st.integers(1, 2)),
    ),
    max_size=14,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_coming_and_going(kind: str, drive: Callable[[str], Driven], steps: list[tuple[str, int]]) -> None:
    driven = drive(kind)
    for verb, number in steps:
        longest = max((len(row.tokens) for row in driven.rows), default=0)
        has_room = longest + number <= driven.engine._manifest.context_length
        if verb == "insert":
            driven.insert(number, beside=number % 2 == 0 and has_room)
        elif driven.rows and verb == "drop":
            driven.drop(number % len(driven.rows))
        elif driven.rows and has_room:
            driven.decode(number)


@pytest.mark.cuda
def test_rows_come_and_go_on_a_gpu(make_package: PackageMaker) -> None:
    engine = edgellm.load(make_package(HALF), prefill_chunk=16).new_engine()
    driven = Driven(engine, in_one_piece(HALF), tolerance=0.02)
    driven.prefill(3, 17)
    driven.insert(70)
    driven.decode(2)
    driven.drop(1)
    driven.decode()
    driven.insert(9)
    driven.decode(3)


# Values, not attributes


def assigned(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Owner and name of each attribute that is written to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.value, node.attr


def test_nobody_writes_into_an_engine() -> None:
    """What an engine is told comes as an argument; only an object's own methods write to its attributes."""
    root = Path(edgellm.__file__).parent
    for file in sorted(root.rglob("*.py")):
        written = {name for owner, name in assigned(ast.parse(file.read_text())) if ast.unparse(owner) != "self"}
        assert not written & {"headroom", "progress", "sources", "reuse_generated", "history"}, file
