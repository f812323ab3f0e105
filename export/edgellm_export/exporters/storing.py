"""A package's graphs in its directory. What several read, such as an embedding, lies in the first one's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from edgellm.types import ProgressHook
from edgellm_export.float_run.segments import DataFile, DataFiles
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.package.output import disk_errors

GraphWriter = Callable[..., dict[str, int]]  # see edgellm_export.onnx.writer


def store_graphs(graphs: Mapping[str, BuiltGraph], work: Path, write: GraphWriter, progress: ProgressHook) -> DataFiles:
    """Put graphs by the names of their files into `work`, by `write`. `progress` gets (bytes done, bytes in all)."""
    total = sum({r.name: r.nbytes for graph in graphs.values() for p in graph.produced for r in p.regions}.values())
    done, files = 0, DataFiles([])
    for name, graph in graphs.items():
        own = _borrowing(graph, files)
        before, done = done, done + sum(region.nbytes for produced in own.produced for region in produced.regions)
        offsets = write(own, work / name, progress=lambda written, _, before=before: progress(before + written, total))
        files = DataFiles([*files.files, DataFile(work / f"{name}.data", offsets)])
    return files


def store_borrowers(graphs: Mapping[str, BuiltGraph], work: Path, data: DataFiles) -> None:
    """The same for graphs all of whose weights lie in `data`."""
    for name, graph in graphs.items():
        borrowing = _borrowing(graph, data)
        assert not borrowing.stored, f"{name} has weights of its own"
        with disk_errors(work):
            ir.save(borrowing.model, work / name)


def _borrowing(graph: BuiltGraph, data: DataFiles) -> BuiltGraph:
    """`graph` with the regions that `data` holds read from there; what is left are its own."""
    places = {name: (file.path, offset) for file in data.files for name, offset in file.offsets.items()}
    for stored in graph.stored:
        region = stored.region
        if region.name in places:
            path, offset = places[region.name]
            stored.value.const_value = ir.ExternalTensor(
                path.name, offset, region.nbytes, ir.DataType.from_numpy(region.dtype),
                shape=stored.value.shape or ir.Shape(region.shape), name=str(stored.value.name), base_dir=path.parent,
            )  # fmt: skip
    own = [stored for stored in graph.stored if stored.region.name not in places]
    produced = [group for group in graph.produced if group.regions[0].name not in places]
    return replace(graph, stored=own, produced=produced)
