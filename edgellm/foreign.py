"""Directories without edgellm.json: what optimum-cli writes, and the ONNX community's layout, run as they are.

    config.json  tokenizer.json  generation_config.json ...
    model.onnx, or decoder_model_merged.onnx, or decoder_model.onnx and decoder_with_past_model.onnx
    (or these in onnx/, with suffixes such as _fp16 or _quantized for other precisions)

The manifest that such a directory lacks is made from config.json and from the graphs' own inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgellm.cache import cache_names
from edgellm.concat_graph import INPUTS
from edgellm.errors import PackageError, PackageNotFoundError
from edgellm.manifest import CacheLayout, FileEntry, GraphFile, Manifest, Precision, TokenIds, Weights
from edgellm.onnx_file import GraphFacts, read_graph
from edgellm.tokenizer import read_json

CONFIG = "config.json"
FOLDERS = ("", "onnx")
WHOLE, MERGED, FIRST, LATER, ENCODER = (
    "model", "decoder_model_merged", "decoder_model", "decoder_with_past_model", "encoder_model",
)  # fmt: skip
ROLES = (MERGED, LATER, FIRST, ENCODER, WHOLE)
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "seq_length")
DEFAULT_CONTEXT = 2048  # tokens, where neither config nor tokenizer says
MAX_SENSIBLE_LENGTH = 1 << 24  # tokenizers without a limit say 10**30


@dataclass(frozen=True)
class Graph:
    """One graph of a directory. `file` is its POSIX path inside."""

    file: str
    facts: GraphFacts


def is_foreign(path: Path) -> bool:
    """Whether `path` is one of another tool's graphs, or a directory of them."""
    return path.suffix == ".onnx" or any(_roles(path, folder, "") for folder in FOLDERS)


def read_foreign(path: Path) -> tuple[Path, Manifest]:
    """The directory, and a manifest without hashes. Raises PackageError where edgellm cannot run what is there.

    `path`: the directory, or one of its graphs, whose suffix then chooses among several precisions.
    """
    root, files = _locate(path)
    if not (root / CONFIG).is_file():
        raise PackageNotFoundError(
            f"{root} has ONNX graphs and no {CONFIG}; add the one of the checkpoint they are from"
        )
    config = read_json(root / CONFIG)
    graphs = {role: Graph(file, _read_inside(root, file)) for role, file in files.items()}
    data = sorted({name for graph in graphs.values() for name in _external_files(root, graph)})
    parts = _parts(root, graphs)
    logits = parts[0].facts.outputs.get("logits")
    if ENCODER in graphs or logits is None or not _pasts(parts[-1]):
        raise PackageError(
            f"{root} holds {', '.join(graphs)} with outputs {', '.join(parts[0].facts.outputs)}: edgellm runs decoders "
            "that were exported with their past, as `optimum-cli export onnx --task text-generation-with-past` does"
        )
    vocab_size = _size(logits.shape[-1], config, "vocab_size")
    names = [graph.file for graph in parts] + data
    manifest = Manifest(
        task="text-generation",
        model_type=str(config.get("model_type", "unknown")),
        target="cpu",
        graphs=_graph_files(parts),
        cache=_layout(parts, config),
        weights=_weights(parts),
        vocab_size=vocab_size,
        context_length=_context_length(root, config),
        tokens=_token_ids(read_json(root / "generation_config.json"), config, vocab_size),
        files={name: FileEntry((root / name).stat().st_size, "") for name in names},
        source={"kind": "onnx", "name": root.resolve().name},
    )
    return root, manifest


def _locate(path: Path) -> tuple[Path, dict[str, str]]:
    """The directory and its graphs by role."""
    if path.suffix == ".onnx":
        if not path.is_file():
            raise PackageNotFoundError(f"no graph at {path}")
        in_folder = path.parent.name in FOLDERS and not (path.parent / CONFIG).is_file()
        root, folder = (path.parent.parent, path.parent.name) if in_folder else (path.parent, "")
        suffix = next((path.stem.removeprefix(role) for role in ROLES if path.stem.startswith(role)), "")
        found = _roles(root, folder, suffix)
        return root, found or {WHOLE: (PurePosixPath(folder) / path.name).as_posix()}
    found = next(filter(None, (_roles(path, folder, "") for folder in FOLDERS)))
    return path, found


def _roles(root: Path, folder: str, suffix: str) -> dict[str, str]:
    files = {role: (PurePosixPath(folder) / f"{role}{suffix}.onnx").as_posix() for role in ROLES}
    return {role: file for role, file in files.items() if (root / file).is_file()}


def _parts(root: Path, graphs: Mapping[str, Graph]) -> Sequence[Graph]:
    """The graph that runs, or the one without a past and the one with it."""
    for role in (MERGED, WHOLE):
        if role in graphs:
            return [graphs[role]]
    if FIRST in graphs and LATER in graphs:
        return [graphs[FIRST], graphs[LATER]]
    only = next(iter(graphs))
    raise PackageNotFoundError(
        f"{root} has {only}.onnx alone; a decoder is {WHOLE}.onnx, {MERGED}.onnx, or {FIRST}.onnx with {LATER}.onnx"
    )


def _graph_files(parts: Sequence[Graph]) -> dict[str, GraphFile]:
    names = ("model",) if len(parts) == 1 else ("first", "later")
    return {name: _graph_file(part) for name, part in zip(names, parts, strict=True)}


def _graph_file(graph: Graph) -> GraphFile:
    """Its names at the boundary, cache excluded. Raises PackageError where it has inputs that nobody would fill."""
    inputs = [name for name in graph.facts.inputs if not name.startswith("past")]
    unknown = sorted(set(inputs) - set(INPUTS))
    if unknown:
        raise PackageError(f"{graph.file} has inputs that edgellm does not know: {', '.join(unknown)}")
    return GraphFile(graph.file, tuple(inputs), tuple(n for n in graph.facts.outputs if not n.startswith("present")))


def _pasts(graph: Graph) -> list[str]:
    return [name for name in graph.facts.inputs if name.startswith("past")]


def _layout(parts: Sequence[Graph], config: Mapping[str, Any]) -> CacheLayout:
    """Raises PackageError for a cache that is not one key and one value of four dimensions per layer."""
    graph = parts[-1]
    pasts = _pasts(graph)
    key = graph.facts.inputs.get("past_key_values.0.key")
    value = graph.facts.inputs.get("past_key_values.0.value")
    if key is None or value is None:
        fused = any(name.endswith(".key_value") for name in pasts)
        what = "keys and values in one tensor, as old exports of gpt_bigcode have" if fused else f"inputs {pasts[:4]}"
        raise _unknown_cache(graph, what)
    if len(key.shape) != 4 or len(value.shape) != 4:
        raise _unknown_cache(graph, "tensors without a dimension of their own for heads, as old exports of bloom have")
    if key.shape[3] != value.shape[3]:
        raise _unknown_cache(graph, f"keys of {key.shape[3]} and values of {value.shape[3]}")
    if key.dtype not in ("float32", "float16"):
        raise _unknown_cache(graph, f"type {key.dtype}")
    heads = _size(key.shape[1], config, "num_key_value_heads", "num_attention_heads", "n_head", "num_heads")
    head_dim = key.shape[3] if isinstance(key.shape[3], int) else _head_dim(config)
    layout = CacheLayout(len(pasts) // 2, heads, head_dim, key.dtype, growth="concat")  # type: ignore[arg-type]
    names = cache_names(layout)
    presents = [name for part in parts for name in part.facts.outputs if name.startswith("present")]
    if set(pasts) != {past for past, _ in names} or set(presents) != {present for _, present in names}:
        raise _unknown_cache(graph, f"{len(pasts)} inputs {pasts[:4]} and outputs {presents[:4]}")
    return layout


def _unknown_cache(graph: Graph, what: str) -> PackageError:
    return PackageError(
        f"{graph.file} has a cache that edgellm does not run ({what}), expected past_key_values.N.key and .value of "
        "[batch, heads, length, head size]; export the checkpoint again, with `edgellm export --via optimum`"
    )


def _head_dim(config: Mapping[str, Any]) -> int:
    if config.get("head_dim"):
        return _size("?", config, "head_dim")
    hidden = _size("?", config, "hidden_size", "n_embd", "d_model")
    return hidden // _size("?", config, "num_attention_heads", "n_head", "num_heads")


def _size(dim: int | str, config: Mapping[str, Any], *keys: str) -> int:
    """A dimension of the graph, or what config.json says where the graph leaves it open."""
    values = (dim, *(config.get(key) for key in keys))
    found = next((value for value in values if type(value) is int and value > 0), None)
    if found is None:
        raise PackageError(f"neither the graph nor {CONFIG} says the {keys[0]}")
    return found


def _weights(parts: Sequence[Graph]) -> Weights:
    """By what most of the weights are."""
    counts: dict[Precision, int] = {"fp32": 0, "fp16": 0, "int8": 0, "int4": 0}
    by_type: dict[int, Precision] = {1: "fp32", 10: "fp16", 16: "fp16", 2: "int8", 3: "int8", 21: "int4", 22: "int4"}
    for data_type, count in parts[0].facts.weights.items():
        if data_type in by_type:
            counts[by_type[data_type]] += count
    precision = max(counts, key=lambda name: counts[name])
    if precision == "int8" and 4 in parts[0].facts.bits:
        precision = "int4"
    return Weights(precision, "as found", tied_embedding=False)


def _context_length(root: Path, config: Mapping[str, Any]) -> int:
    limits = (
        *(config.get(key) for key in CONTEXT_KEYS),
        read_json(root / "tokenizer_config.json").get("model_max_length"),
    )
    sensible = (n for n in limits if type(n) is int and 0 < n <= MAX_SENSIBLE_LENGTH)
    return next(sensible, DEFAULT_CONTEXT)


def _token_ids(generation: Mapping[str, Any], config: Mapping[str, Any], vocab_size: int) -> TokenIds:
    """generation_config.json speaks first, config.json where it is silent."""

    def ids(key: str) -> tuple[int, ...]:
        value = generation.get(key, config.get(key))
        values = value if isinstance(value, list) else [value]
        return tuple(v for v in values if type(v) is int and 0 <= v < vocab_size)

    def first(key: str) -> int | None:
        return next(iter(ids(key)), None)

    return TokenIds(first("bos_token_id"), ids("eos_token_id"), first("pad_token_id"))


def _external_files(root: Path, graph: Graph) -> list[str]:
    """The files of weights beside a graph, as POSIX paths inside `root`. Raises PackageError for others."""
    folder = PurePosixPath(graph.file).parent
    names = []
    for location in graph.facts.external:
        path = PurePosixPath(location)
        name = (folder / path).as_posix()
        if path.is_absolute() or ".." in path.parts or "\\" in location or not _inside(root, root / name):
            raise PackageError(
                f"{graph.file} has weights in {location!r}, which leads outside {root}; it is not loaded"
            )
        if not (root / name).is_file():
            raise PackageError(f"{graph.file} has weights in {location}, and {root} has no {name}; copy it there")
        names.append(name)
    return names


def _read_inside(root: Path, file: str) -> GraphFacts:
    if not _inside(root, root / file):
        raise PackageError(f"{root / file} is a link that leads outside {root}")
    return read_graph(root / file)


def _inside(root: Path, path: Path) -> bool:
    """Also by way of the hub's cache, where snapshots/REVISION/FILE is a link to blobs/HASH."""
    here = root.resolve()
    cached = [here.parent.parent / "blobs"] if here.parent.name == "snapshots" else []
    return any(path.resolve().is_relative_to(place) for place in [here, *cached])
