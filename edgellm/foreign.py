"""Directories without edgellm.json: what optimum-cli writes, and the ONNX community's layout, run as they are.

    config.json  tokenizer.json  generation_config.json ...
    model.onnx, or decoder_model_merged.onnx, or decoder_model.onnx and decoder_with_past_model.onnx
    encoder_model.onnx, beside a decoder
    (or these in onnx/, with suffixes such as _fp16 or _quantized for other precisions)

The manifest that such a directory lacks is made from config.json and from the graphs' own inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, get_args

from edgellm.cache import cache_names
from edgellm.concat.encoder_decoder import DECODER_INPUTS, ENCODER_INPUTS
from edgellm.concat.graph import INPUTS
from edgellm.encoder_decoder_engine import cross_names
from edgellm.errors import PackageError, PackageNotFoundError
from edgellm.manifest import (
    LABEL_TASKS,
    CacheLayout,
    CrossCacheLayout,
    Encoder,
    FileEntry,
    GraphFile,
    Manifest,
    Precision,
    Problem,
    Task,
    TokenIds,
    Weights,
)
from edgellm.onnx_file import GraphFacts, read_graph
from edgellm.sentence import read_embedding
from edgellm.tokenizer import read_json

CONFIG = "config.json"
FOLDERS = ("", "onnx")
WHOLE, MERGED, FIRST, LATER, ENCODER = (
    "model", "decoder_model_merged", "decoder_model", "decoder_with_past_model", "encoder_model",
)  # fmt: skip
ROLES = (MERGED, LATER, FIRST, ENCODER, WHOLE)
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "seq_length")
DEFAULT_CONTEXT = 2048  # tokens, where neither config nor tokenizer says
MAX_LABELS = 1 << 20
MAX_SENSIBLE_LENGTH = 1 << 24  # tokenizers without a limit say 10**30
RELATIVE = "relative_attention_num_buckets"  # of models that look at distances
# Families that count positions from behind the padding token's number.
BEHIND_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "roberta-prelayernorm", "ibert"}
MIXES_ROWS = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}  # operators with one scale for a whole batch


@dataclass(frozen=True)
class Graph:
    """One graph of a directory. `file` is its POSIX path inside."""

    file: str
    facts: GraphFacts


class Kind(TypedDict):
    """What a manifest says by kind of model."""

    task: Task
    graphs: Mapping[str, GraphFile]
    cache: CacheLayout | None
    cross_cache: CrossCacheLayout | None
    encoder: Encoder | None
    source_length: int | None


def is_foreign(path: Path) -> bool:
    """Whether `path` is one of another tool's graphs, or a directory of them."""
    return path.suffix == ".onnx" or any(_roles(path, folder, "") for folder in FOLDERS)


def read_foreign(path: Path) -> tuple[Path, Manifest]:
    """The directory, and a manifest without hashes. Raises PackageError where edgellm cannot run what is there.

    `path`: the directory, or one of its graphs, whose suffix then chooses among several precisions.
    """
    root, files = _locate(path)
    if not (root / CONFIG).is_file():
        raise PackageNotFoundError(f"{root} has ONNX graphs and no {CONFIG}; add that of their checkpoint")
    config = read_json(root / CONFIG)
    graphs = {role: Graph(file, _read_inside(root, file)) for role, file in files.items()}
    parts = _parts(root, graphs)
    context_length = _context_length(root, config)
    if ENCODER in graphs:
        kind = _encoder_decoder(graphs[ENCODER], parts, config, context_length)
    elif _pasts(parts[-1]):
        kind = _decoder(parts, config)
    else:
        context_length = min(_positions(config, context_length), _tokenizer_length(root))
        kind = _encoder(root, parts[0], config, context_length)
    used = [graph for graph in graphs.values() if graph in (*parts, graphs.get(ENCODER))]
    names = {name for graph in used for name in (graph.file, *_external_files(root, graph))}
    vocab_size = _vocab_size(parts[0], config)
    return root, Manifest(
        model_type=str(config.get("model_type", "unknown")),
        target="cpu",
        weights=_weights(parts),
        vocab_size=vocab_size,
        context_length=context_length,
        tokens=_token_ids(read_json(root / "generation_config.json"), config, vocab_size),
        files={name: FileEntry((root / name).stat().st_size, "") for name in sorted(names)},
        source={"kind": "onnx", "name": root.resolve().name},
        **kind,
    )


def _decoder(parts: Sequence[Graph], config: Mapping[str, Any]) -> Kind:
    layout = _layout(parts, config, "past_key_values.{layer}.{side}", "present.{layer}.{side}")
    _check_cache(parts, cache_names(layout), [])
    names = ("model",) if len(parts) == 1 else ("first", "later")
    graphs = {name: _graph_file(part, INPUTS, ("logits",)) for name, part in zip(names, parts, strict=True)}
    return Kind(task="text-generation", graphs=graphs, cache=layout, cross_cache=None, encoder=None, source_length=None)


def _encoder_decoder(encoder: Graph, parts: Sequence[Graph], config: Mapping[str, Any], context: int) -> Kind:
    side = "past_key_values.{layer}.%s.{side}", "present.{layer}.%s.{side}"
    own = _layout(parts, config, *(pattern % "decoder" for pattern in side))
    past, present = (pattern % "encoder" for pattern in side)
    assert own.dtype != "int8"
    across = CrossCacheLayout(own.num_layers, own.num_kv_heads, own.head_dim, own.dtype, past, present)
    _check_cache(parts, cache_names(own), cross_names(across))
    names = ("decoder",) if len(parts) == 1 else ("first", "later")
    graphs = {name: _graph_file(part, DECODER_INPUTS, ("logits",)) for name, part in zip(names, parts, strict=True)}
    return Kind(
        task="text2text-generation",
        graphs={"encoder": _graph_file(encoder, ENCODER_INPUTS, ("last_hidden_state",)), **graphs},
        cache=own,
        cross_cache=across,
        encoder=None,
        source_length=None if _has_no_end(config) else context,
    )


def _encoder(root: Path, graph: Graph, config: Mapping[str, Any], context_length: int) -> Kind:
    """An encoder-only model: its head shows in the outputs, and in the name of the checkpoint's class."""
    outputs, architectures = graph.facts.outputs, config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    task: Task | None = None
    if "start_logits" in outputs and "end_logits" in outputs:
        task = "question-answering"
    elif "logits" in outputs and len(outputs["logits"].shape) == 2:
        task = "text-classification"
    elif "logits" in outputs and name.endswith("ForTokenClassification"):
        task = "token-classification"
    elif "logits" in outputs and name.endswith("ForMaskedLM"):
        task = "fill-mask"
    elif "last_hidden_state" in outputs:
        task = "feature-extraction"
    if task is None:
        raise PackageError(
            f"{root} holds {graph.file} with outputs {', '.join(list(outputs)[:4])}: edgellm runs encoders with their "
            "heads, and decoders that were exported with their past, as `--task text-generation-with-past` does"
        )
    wanted = {"question-answering": ("start_logits", "end_logits"), "feature-extraction": ("last_hidden_state",)}
    file = _graph_file(graph, ("input_ids", "attention_mask", "token_type_ids"), wanted.get(task, ("logits",)))
    labels = _labels(config, outputs["logits"].shape[-1]) if task in LABEL_TASKS else ()
    problem = config.get("problem_type")
    facts = Encoder(
        labels=labels,
        problem_type=problem if task == "text-classification" and problem in get_args(Problem) else None,
        embedding=read_embedding(root, context_length) if task == "feature-extraction" else None,
        rows_apart=bool(MIXES_ROWS & graph.facts.operators),
    )
    return Kind(task=task, graphs={"model": file}, cache=None, cross_cache=None, encoder=facts, source_length=None)


def _labels(config: Mapping[str, Any], outputs: int | str) -> tuple[str, ...]:
    named = config.get("id2label")
    named = named if isinstance(named, dict) else {}
    count = outputs if isinstance(outputs, int) else len(named) or 2
    if not 0 < count <= MAX_LABELS:
        raise PackageError(f"its outputs have {count} classes, expected 1 to {MAX_LABELS}")
    return tuple(str(named.get(str(i), f"LABEL_{i}")) for i in range(count))


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


def _graph_file(graph: Graph, known: Sequence[str], outputs: Sequence[str]) -> GraphFile:
    """Its names at the boundary, cache excluded. Raises PackageError where it has inputs that nobody would fill."""
    inputs = [name for name in graph.facts.inputs if not name.startswith("past")]
    unknown = sorted(set(inputs) - set(known))
    lacking = sorted(set(outputs) - graph.facts.outputs.keys())
    if unknown:
        raise PackageError(f"{graph.file} has inputs that edgellm does not know: {', '.join(unknown)}")
    if lacking:
        raise PackageError(f"{graph.file} has no output {', '.join(lacking)}; it has {[*graph.facts.outputs][:4]}")
    return GraphFile(graph.file, tuple(inputs), tuple(outputs))


def _pasts(graph: Graph) -> list[str]:
    return [name for name in graph.facts.inputs if name.startswith("past")]


def _layout(parts: Sequence[Graph], config: Mapping[str, Any], past: str, present: str) -> CacheLayout:
    """Raises PackageError for a cache that is not one key and one value of four dimensions per layer."""
    graph = parts[-1]
    key, value = (graph.facts.inputs.get(past.format(layer=0, side=side)) for side in ("key", "value"))
    pasts = _pasts(graph)
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
    layers = 0
    while past.format(layer=layers, side="key") in graph.facts.inputs:
        layers += 1
    heads = _size(key.shape[1], config, "num_key_value_heads", "num_attention_heads", "n_head", "num_heads")
    head_dim = key.shape[3] if isinstance(key.shape[3], int) else _head_dim(config)
    return CacheLayout(layers, heads, head_dim, key.dtype, "concat", past, present)  # type: ignore[arg-type]


def _check_cache(parts: Sequence[Graph], own: Sequence[tuple[str, str]], across: Sequence[tuple[str, str]]) -> None:
    """own: past and present names; across: the first run's output and the later runs' input, of each layer and side."""
    first, later = parts[0].facts, parts[-1].facts
    pasts = {*(past for past, _ in own), *(past for _, past in across)}
    presents = {present for _, present in own}
    complete = presents <= later.outputs.keys() and presents | {made for made, _ in across} <= first.outputs.keys()
    if not complete or pasts != set(_pasts(parts[-1])):
        found = [name for name in later.outputs if name.startswith("present")]
        raise _unknown_cache(parts[-1], f"inputs {_pasts(parts[-1])[:4]} and outputs {found[:4]}")


def _vocab_size(graph: Graph, config: Mapping[str, Any]) -> int:
    """An encoder's outputs need not be of the vocabulary's size."""
    logits = graph.facts.outputs.get("logits")
    stated = config.get("vocab_size")
    if type(stated) is int and stated > 0 and not _pasts(graph):
        return stated
    return _size("?" if logits is None else logits.shape[-1], config, "vocab_size")


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
    if _has_no_end(config):
        return MAX_SENSIBLE_LENGTH
    stated = (config.get(key) for key in CONTEXT_KEYS)
    sensible = (n for n in stated if type(n) is int and 0 < n <= MAX_SENSIBLE_LENGTH)
    return next(sensible, min(_tokenizer_length(root), DEFAULT_CONTEXT))


def _positions(config: Mapping[str, Any], rows: int) -> int:
    """Of a table of so many rows, those that tokens can have."""
    if config.get("model_type") not in BEHIND_PADDING:
        return rows
    padding = config.get("pad_token_id")
    return rows - max(2, padding + 1 if type(padding) is int else 0)


def _has_no_end(config: Mapping[str, Any]) -> bool:
    """Positions that are relative only, as T5's."""
    return RELATIVE in config and "max_position_embeddings" not in config


def _tokenizer_length(root: Path) -> int:
    """Without a limit, or without a file, the most that makes sense."""
    length = read_json(root / "tokenizer_config.json").get("model_max_length")
    return length if type(length) is int and 0 < length <= MAX_SENSIBLE_LENGTH else MAX_SENSIBLE_LENGTH


def _token_ids(generation: Mapping[str, Any], config: Mapping[str, Any], vocab_size: int) -> TokenIds:
    """generation_config.json speaks first, config.json where it is silent."""

    def ids(key: str) -> tuple[int, ...]:
        value = generation.get(key, config.get(key))
        values = value if isinstance(value, list) else [value]
        return tuple(v for v in values if type(v) is int and 0 <= v < vocab_size)

    def first(key: str) -> int | None:
        return next(iter(ids(key)), None)

    decoder_start = first("decoder_start_token_id")
    return TokenIds(first("bos_token_id"), ids("eos_token_id"), first("pad_token_id"), decoder_start)


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
