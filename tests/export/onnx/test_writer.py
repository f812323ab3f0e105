"""A graph and its data file: every region at an aligned place of its own, and full."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgellm.errors import OutOfSpaceError
from edgellm_export.onnx.builder import BuiltGraph, GraphBuilder, Produced, Region, as_model
from edgellm_export.onnx.writer import ALIGNMENT, outline_graph, write_graph

RNG = np.random.default_rng(0)
TOGETHER = {"codes": RNG.integers(0, 255, (6, 1000)).astype(np.uint8), "scales": RNG.random((6, 3), np.float32)}
ALONE = RNG.random((300, 5), np.float32)


def pieces(arrays: list[np.ndarray], rows: int) -> Iterator[tuple[np.ndarray, ...]]:
    for start in range(0, len(arrays[0]), rows):
        yield tuple(array[start : start + rows] for array in arrays)


def built(rows: int = 2, until: int = 6) -> BuiltGraph:
    """Two regions that are filled together, some `rows` at a time; one of its own; and a view of it."""
    builder = GraphBuilder("test")
    regions = tuple(Region(name, array.dtype, array.shape) for name, array in TOGETHER.items())
    arrays = [array[:until] for array in TOGETHER.values()]
    codes, scales = builder.store(Produced(regions, lambda: pieces(arrays, rows)))
    alone = builder.array("alone", ALONE)
    view = builder.view(builder.stored["alone"].region, "alone, flat", [1500])
    outputs = []
    for value in (codes, scales, alone, view):
        made = builder.op("Identity", value, name=f"/{value.name}")
        dtype = ir.DataType.UINT8 if value is codes else ir.DataType.FLOAT
        outputs.append((made, f"{value.name} out", dtype, list(value.shape.numpy())))
    return BuiltGraph(as_model(builder.finish(outputs)), [*builder.stored.values()], builder.produced, [])


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_what_is_written_is_read(rows: int, tmp_path: Path) -> None:
    """In pieces of any size; `progress` ends with all bytes."""
    shown: list[tuple[int, int]] = []
    write_graph(built(rows), tmp_path / "m.onnx", progress=lambda *done: shown.append(done))
    found = initializers(tmp_path / "m.onnx")
    for name, expected in {**TOGETHER, "alone": ALONE, "alone, flat": ALONE.ravel()}.items():
        np.testing.assert_array_equal(found[name], expected)
    assert not onnx.load(tmp_path / "m.onnx").graph.value_info  # initializers say their shapes themselves
    total = sum(array.nbytes for array in (*TOGETHER.values(), ALONE))
    assert shown[-1] == (total, total)
    assert shown == sorted(shown)


def test_regions_are_aligned_and_apart(tmp_path: Path) -> None:
    offsets = write_graph(built(), tmp_path / "m.onnx")
    sizes = {name: array.nbytes for name, array in {**TOGETHER, "alone": ALONE}.items()}
    assert offsets.keys() == sizes.keys()  # a view has no region of its own
    assert all(offset % ALIGNMENT == 0 for offset in offsets.values())
    ordered = sorted(offsets, key=lambda name: offsets[name])
    for one, next_one in pairwise(ordered):
        assert offsets[one] + sizes[one] <= offsets[next_one]
    size = (tmp_path / "m.onnx.data").stat().st_size
    assert size == offsets[ordered[-1]] + sizes[ordered[-1]]


def test_a_region_that_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="codes was not filled"):
        write_graph(built(until=5), tmp_path / "m.onnx")


def test_an_outline_has_the_graph_and_the_sizes(tmp_path: Path) -> None:
    """Of the same names, since the graph names its data."""
    offsets = []
    for made, write in (("written", write_graph), ("outlined", outline_graph)):
        (tmp_path / made).mkdir()
        offsets.append(write(built(), tmp_path / made / "m.onnx"))
    assert offsets[0] == offsets[1]
    graphs = [(tmp_path / made / "m.onnx").read_bytes() for made in ("written", "outlined")]
    data = [(tmp_path / made / "m.onnx.data").stat() for made in ("written", "outlined")]
    assert graphs[0] == graphs[1]
    assert data[0].st_size == data[1].st_size
    assert data[1].st_blocks == 0


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutOfSpaceError, match="cannot write to"):
        write_graph(built(), tmp_path / "nowhere" / "m.onnx")
