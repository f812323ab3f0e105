"""All that a package's files say of it: manifest, graphs, matrices with their errors, memory. Nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgellm.inspection.footprint import Footprint, footprint
from edgellm.inspection.graph_summary import GraphMatrix, GraphSummary, summarize
from edgellm.package.manifest import MANIFEST_NAME, Manifest
from edgellm.package.report import Report, read_report

LAYER = re.compile(r"(?:layers?|blocks?|h)[._/](\d+)(?=[._/]|$)")
CONTEXT = 2048  # tokens, or what the model has
TABLES = ("GroupQueryAttention", "RotaryEmbedding")  # their constants are the positions', which all layers share


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of a package. `part`: the graph's name. `layer`: None outside the layers. `error`: of its outputs on
    calibration text, relative; None where it was not measured."""

    part: str
    layer: int | None
    node: str
    operator: str
    scheme: str
    shape: tuple[int, ...]
    bytes: int
    error: float | None


@dataclass(frozen=True)
class Layer:
    """The matrices of a layer together; `layer` None is what lies outside of all. `error`: of the layer's output in the
    comparison with the original."""

    part: str
    layer: int | None
    bytes: int
    schemes: tuple[str, ...]
    error: float | None


@dataclass(frozen=True)
class Inspection:
    """What a package says of itself. `written`: when the manifest was, as the file system says; None for a directory
    without one."""

    path: Path
    manifest: Manifest
    report: Report | None
    graphs: Mapping[str, GraphSummary]
    matrices: tuple[StoredMatrix, ...]
    layers: tuple[Layer, ...]
    memory: Footprint
    written: datetime | None


def inspect_package(path: Path, manifest: Manifest, context: int) -> Inspection:
    """What the package in `path` says. `context`: tokens to estimate the memory for. Raises PackageCorruptError where a
    graph or the report cannot be read."""
    graphs = {name: summarize(path / graph.file) for name, graph in manifest.graphs.items()}
    report = read_report(path) if manifest.has_hashes else None
    matrices = tuple(each for name, graph in graphs.items() for each in _matrices(name, graph.matrices, report))
    file = path / MANIFEST_NAME
    return Inspection(
        path=path,
        manifest=manifest,
        report=report,
        graphs=graphs,
        matrices=matrices,
        layers=tuple(_layers(matrices, report)),
        memory=footprint(path, manifest, context),
        written=datetime.fromtimestamp(file.stat().st_mtime, UTC) if file.is_file() else None,
    )


def _matrices(part: str, matrices: Sequence[GraphMatrix], report: Report | None) -> list[StoredMatrix]:
    """The report names layers, whose node's name goes on with its operator; its schemes are the finer ones."""
    reported = {} if report is None else {matrix.node: matrix for matrix in report.matrices}
    stored = []
    for each in matrices:
        place = each.node.rpartition("/")[0] or each.node
        layer = None if each.operator in TABLES else _layer(place)
        known = reported.get(place)
        scheme, error = (each.scheme, None) if known is None else (known.scheme, known.error)
        stored.append(StoredMatrix(part, layer, place, each.operator, scheme, each.shape, each.bytes, error))
    return stored


def multiplies(operator: str) -> bool:
    """Whether an operator multiplies by its constants, or looks them up: not a norm, not a table of positions."""
    return "MatMul" in operator or operator.startswith(("Gemm", "Gather", "Conv"))


def _layer(place: str) -> int | None:
    match = LAYER.search(place)
    return int(match[1]) if match else None


def _layers(matrices: Sequence[StoredMatrix], report: Report | None) -> list[Layer]:
    groups: dict[tuple[str, int | None], list[StoredMatrix]] = {}
    for matrix in matrices:
        groups.setdefault((matrix.part, matrix.layer), []).append(matrix)
    reported = () if report is None else report.layers
    errors: dict[tuple[str | None, int | None], float] = {(each.part, each.layer): each.error for each in reported}
    return [
        Layer(
            part=part,
            layer=layer,
            bytes=sum(matrix.bytes for matrix in group),
            schemes=tuple(dict.fromkeys(matrix.scheme for matrix in group if multiplies(matrix.operator))),
            error=errors.get((part, layer), errors.get((None, layer))),
        )
        for (part, layer), group in groups.items()
    ]
