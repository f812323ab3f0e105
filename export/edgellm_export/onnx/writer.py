"""The graph on disk, and its weights at aligned offsets of one data file."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, MutableSequence, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgellm_export.onnx.builder import BuiltGraph, Produced, Region
from edgellm_export.package.output import disk_errors

ALIGNMENT = 4096  # bytes: what ONNX Runtime needs to map a tensor instead of copying it


def write_graph(built: BuiltGraph, path: Path, *, progress: Callable[[int, int], None] | None = None) -> dict[str, int]:
    """Write `path` and `path`.data, piece by piece. `progress` gets (bytes done, bytes in all). Returns region offsets.

    Raises OutOfSpaceError when the disk is full.
    """
    offsets = _layout([produced.regions for produced in built.produced])
    with disk_errors(path.parent):
        _write_data(built.produced, offsets, _data(path), progress)
        _save(built, path, offsets)
    return offsets


def outline_graph(
    built: BuiltGraph, path: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Write `path` as `write_graph` does, and a data file that has its size but holds nothing, also on the disk."""
    offsets = _layout([produced.regions for produced in built.produced])
    with disk_errors(path.parent):
        with _data(path).open("wb") as file:
            file.truncate(_size(built.produced, offsets))
        _save(built, path, offsets)
    return offsets


def _data(graph: Path) -> Path:
    return graph.with_name(graph.name + ".data")


def _save(built: BuiltGraph, path: Path, offsets: dict[str, int]) -> None:
    """Write the graph, whose initializers lie in its data file."""
    for stored in built.stored:
        region = stored.region
        stored.value.const_value = ir.ExternalTensor(
            _data(path).name, offsets[region.name], region.nbytes, ir.DataType.from_numpy(region.dtype),
            shape=stored.value.shape or ir.Shape(region.shape), name=str(stored.value.name), base_dir=path.parent,
        )  # fmt: skip
    model = ir.to_proto(built.model)
    _forget(model.graph.value_info, {tensor.name for tensor in model.graph.initializer})
    path.write_bytes(model.SerializeToString())


def _forget(infos: MutableSequence[onnx.ValueInfoProto], names: Collection[str]) -> None:
    """What initializers say of themselves, and is a sixth of a graph with many experts. What stays is of outputs that
    ONNX Runtime cannot tell the types of."""
    kept = [info for info in infos if info.name not in names]
    del infos[:]
    infos.extend(kept)


def _layout(groups: Sequence[Sequence[Region]]) -> dict[str, int]:
    offsets, end = {}, 0
    for region in (region for group in groups for region in group):
        offsets[region.name] = end
        end += padded(region)
    return offsets


def padded(region: Region) -> int:
    """The bytes of a file up to the next region."""
    return -(-region.nbytes // ALIGNMENT) * ALIGNMENT


def _size(groups: Sequence[Produced], offsets: dict[str, int]) -> int:
    """How many bytes the data file has."""
    return max((offsets[region.name] + region.nbytes for group in groups for region in group.regions), default=0)


def _write_data(
    groups: Sequence[Produced], offsets: dict[str, int], path: Path, progress: Callable[[int, int], None] | None
) -> None:
    total = sum(region.nbytes for group in groups for region in group.regions)
    done = 0
    with path.open("wb") as file:
        size = _size(groups, offsets)
        os.posix_fallocate(file.fileno(), 0, size) if size else None
        for group in groups:
            cursors = [offsets[region.name] for region in group.regions]
            for pieces in group.pieces():
                for i, (region, piece) in enumerate(zip(group.regions, pieces, strict=True)):
                    assert piece.dtype == region.dtype
                    file.seek(cursors[i])
                    file.write(np.ascontiguousarray(piece).data)
                    cursors[i] += piece.nbytes
                    done += piece.nbytes
                if progress:
                    progress(done, total)
            for region, cursor in zip(group.regions, cursors, strict=True):
                assert cursor == offsets[region.name] + region.nbytes, f"{region.name} was not filled"
