"""The graphs of a directory and their files of weights, none of them outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgellm.errors import PackageError, PackageNotFoundError
from edgellm.package.file_names import is_inside
from edgellm.package.json_data import read_json
from edgellm.package.manifest import FileEntry, GraphFile
from edgellm.package.onnx_file import GraphFacts, read_graph

CONFIG = "config.json"
FOLDERS = ("", "onnx")
WHOLE, MERGED, FIRST, LATER, ENCODER = (
    "model", "decoder_model_merged", "decoder_model", "decoder_with_past_model", "encoder_model",
)  # fmt: skip
ROLES = (MERGED, LATER, FIRST, ENCODER, WHOLE)


@dataclass(frozen=True)
class Graph:
    """One graph of a directory. `file` is its POSIX path inside."""

    file: str
    facts: GraphFacts


@dataclass(frozen=True)
class ForeignDirectory:
    """Another tool's directory. `config`: what its JSON file says of the model. `graphs`: those that are there, by
    role."""

    root: Path
    config: Mapping[str, Any]
    graphs: Mapping[str, Graph]

    @property
    def parts(self) -> Sequence[Graph]:
        """The graph that runs, or the one without a past and the one with it; of an encoder-decoder, the decoder's.
        Raises PackageNotFoundError where half of them is missing."""
        for role in (MERGED, WHOLE):
            if role in self.graphs:
                return [self.graphs[role]]
        if FIRST in self.graphs and LATER in self.graphs:
            return [self.graphs[FIRST], self.graphs[LATER]]
        only = next(iter(self.graphs))
        raise PackageNotFoundError(
            f"{self.root} has {only}.onnx alone; a decoder is {WHOLE}.onnx, {MERGED}.onnx, or {FIRST}.onnx with "
            f"{LATER}.onnx"
        )

    def files(self) -> Mapping[str, FileEntry]:
        """What a manifest lists of the graphs that run and their weights, without hashes."""
        used = [graph for graph in self.graphs.values() if graph in (*self.parts, self.graphs.get(ENCODER))]
        names = {name for graph in used for name in (graph.file, *_external_files(self.root, graph))}
        return {name: FileEntry((self.root / name).stat().st_size, "") for name in sorted(names)}


def open_directory(path: Path) -> ForeignDirectory:
    """The directory `path`, or that of one of its graphs, whose suffix then chooses among several precisions. Raises
    PackageError where something of it cannot be read."""
    root, files = locate(path)
    if not (root / CONFIG).is_file():
        raise PackageNotFoundError(f"{root} has ONNX graphs and no {CONFIG}; add that of their checkpoint")
    config = read_json(root / CONFIG)
    return ForeignDirectory(root, config, {role: Graph(file, read_inside(root, file)) for role, file in files.items()})


def locate(path: Path) -> tuple[Path, dict[str, str]]:
    """The directory and its graphs by role."""
    if path.suffix == ".onnx":
        if not path.is_file():
            raise PackageNotFoundError(f"no graph at {path}")
        in_folder = path.parent.name in FOLDERS and not (path.parent / CONFIG).is_file()
        root, folder = (path.parent.parent, path.parent.name) if in_folder else (path.parent, "")
        suffix = next((path.stem.removeprefix(role) for role in ROLES if path.stem.startswith(role)), "")
        found = roles_in(root, folder, suffix)
        return root, found or {WHOLE: (PurePosixPath(folder) / path.name).as_posix()}
    found = next(filter(None, (roles_in(path, folder, "") for folder in FOLDERS)))
    return path, found


def roles_in(root: Path, folder: str, suffix: str) -> dict[str, str]:
    files = {role: (PurePosixPath(folder) / f"{role}{suffix}.onnx").as_posix() for role in ROLES}
    return {role: file for role, file in files.items() if (root / file).is_file()}


def past_names(graph: Graph) -> list[str]:
    return [name for name in graph.facts.inputs if name.startswith("past")]


def graph_file(graph: Graph, known: Sequence[str], outputs: Sequence[str]) -> GraphFile:
    """The graph's names at its boundary, cache excluded. Raises PackageError where it has inputs that nobody
    would fill."""
    inputs = [name for name in graph.facts.inputs if not name.startswith("past")]
    unknown = sorted(set(inputs) - set(known))
    lacking = sorted(set(outputs) - graph.facts.outputs.keys())
    if unknown:
        raise PackageError(f"{graph.file} has inputs that edgellm does not know: {', '.join(unknown)}")
    if lacking:
        raise PackageError(f"{graph.file} has no output {', '.join(lacking)}; it has {[*graph.facts.outputs][:4]}")
    return GraphFile(graph.file, tuple(inputs), tuple(outputs))


def _external_files(root: Path, graph: Graph) -> list[str]:
    """The files of weights beside a graph, as POSIX paths inside `root`. Raises PackageError for others."""
    folder = PurePosixPath(graph.file).parent
    names = []
    for location in graph.facts.external:
        name = (folder / location).as_posix()
        if not is_inside(location) or not _inside(root, root / name):
            raise PackageError(
                f"{graph.file} has weights in {location!r}, which leads outside {root}; it is not loaded"
            )
        if not (root / name).is_file():
            raise PackageError(f"{graph.file} has weights in {location}, and {root} has no {name}; copy it there")
        names.append(name)
    return names


def read_inside(root: Path, file: str) -> GraphFacts:
    if not _inside(root, root / file):
        raise PackageError(f"{root / file} is a link that leads outside {root}")
    return read_graph(root / file)


def _inside(root: Path, path: Path) -> bool:
    """Whether `path` lies in `root`, also by way of the hub's cache, where snapshots/REVISION/FILE is a link to
    blobs/HASH."""
    here = root.resolve()
    cached = [here.parent.parent / "blobs"] if here.parent.name == "snapshots" else []
    return any(path.resolve().is_relative_to(place) for place in [here, *cached])
