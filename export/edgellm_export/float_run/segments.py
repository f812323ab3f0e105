"""Runs one piece of a model at a time, so that a float run needs the memory of its largest layer, not of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgellm.ort.binding import DTYPES
from edgellm.ort.library import onnxruntime
from edgellm.types import Array
from edgellm_export.onnx.builder import BuiltGraph, Region


@dataclass(frozen=True)
class DataFile:
    """A written data file: regions at known offsets in bytes."""

    path: Path
    offsets: Mapping[str, int]

    def read(self, region: Region) -> Array:
        count = region.nbytes // region.dtype.itemsize
        return np.fromfile(self.path, region.dtype, count, offset=self.offsets[region.name]).reshape(region.shape)


@dataclass(frozen=True)
class DataFiles:
    """Where a package's weights can be read."""

    files: Sequence[DataFile]

    def read(self, region: Region) -> Array:
        return next(file for file in self.files if region.name in file.offsets).read(region)


class Segment:
    """A session over a built graph whose weights are in memory."""

    def __init__(self, built: BuiltGraph, *, data: DataFiles | None = None, threads: int) -> None:
        """Weights come from `data` where it is given, else from the checkpoint through the graph's producers."""
        read = {value.name for node in built.model.graph for value in node.inputs if value is not None}
        used = [stored for stored in built.stored if stored.value.name in read]
        for stored in built.stored:  # of some, only a view is read
            if stored.value.name not in read:
                built.model.graph.initializers.pop(str(stored.value.name))
        arrays = {stored.region.name: stored.region for stored in used}
        contents = {name: data.read(region) for name, region in arrays.items()} if data else _produce(built)
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        values = {}
        for stored in used:
            shape = tuple(stored.value.shape.numpy()) if stored.value.shape else ()
            name, array = str(stored.value.name), contents[stored.region.name].reshape(shape)
            dtype = ir.DataType.from_numpy(array.dtype)
            stored.value.const_value = ir.ExternalTensor(
                "memory", 0, array.nbytes, dtype, shape=ir.Shape(shape), name=name
            )
            values[name] = ort.OrtValue.ortvalue_from_numpy(array)
        options.add_external_initializers(list(values), list(values.values()))
        self._alive = contents
        self._session = ort.InferenceSession(
            ir.to_proto(built.model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {i.name: i for i in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, Array]) -> Array:
        """The first output. Feeds that the segment does not have are ignored; an absent past is empty."""
        return next(iter(self.run_all(feeds).values()))

    def run_all(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, in order."""
        fed = {name: feeds[name] for name in self._inputs if name in feeds}
        for name, info in self._inputs.items():
            if name.startswith("past_key_values."):
                _, heads, _, size = info.shape
                fed[name] = np.zeros((1, heads, 0, size), DTYPES[info.type])
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, fed), strict=True))


def _produce(built: BuiltGraph) -> dict[str, Array]:
    contents: dict[str, Array] = {}
    for produced in built.produced:
        columns: list[list[Array]] = [[] for _ in produced.regions]
        for pieces in produced.pieces():
            for column, piece in zip(columns, pieces, strict=True):
                column.append(piece)
        for region, column in zip(produced.regions, columns, strict=True):
            contents[region.name] = np.ascontiguousarray(column[0] if len(column) == 1 else np.concatenate(column))
    return contents
