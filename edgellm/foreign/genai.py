"""What onnxruntime-genai's model builder writes, and Microsoft publishes:

    genai_config.json  model.onnx  model.onnx.data  tokenizer.json  tokenizer_config.json ...

Its graphs keep their cache in place, as edgellm's do, where they have GroupQueryAttention; others concatenate.
genai_config.json has the names and sizes that the manifest needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgellm.engines.concat.graph import INPUTS
from edgellm.errors import PackageError, PackageNotFoundError
from edgellm.foreign.config import MAX_SENSIBLE_LENGTH, size_of, weights_of
from edgellm.foreign.files import WHOLE, ForeignDirectory, Graph, read_inside
from edgellm.foreign.rope_tables import rope_of
from edgellm.package.json_data import read_json
from edgellm.package.manifest import CacheLayout, DecoderFacts, GraphFile, Manifest, Rope, TokenIds

GENAI_CONFIG = "genai_config.json"
FIXED_NAMES = {"input_ids": "input_ids", "attention_mask": "attention_mask", "position_ids": "position_ids"}
SIDES = ("past_key_names", "past_value_names"), ("present_key_names", "present_value_names")
# Other operators for attention give back a longer cache, if they have one at all.
IN_PLACE, CONCATENATE = "GroupQueryAttention", {"Attention", "MultiHeadAttention"}
WHAT_RUNS = "edgellm runs decoders of one graph; run it with onnxruntime-genai, or export the checkpoint"
CACHE_TYPES = ("float32", "float16", "int8")


def find_genai(path: Path) -> Path | None:
    """The directory, where `path` is one with genai_config.json or the graph that it names."""
    root = path.parent if path.suffix == ".onnx" else path
    if not (root / GENAI_CONFIG).is_file():
        return None
    is_named = root is path or _section(_section(read_json(root / GENAI_CONFIG), "model"), "decoder").get(
        "filename"
    ) == (path.name)
    return root if is_named else None


def read_genai(root: Path) -> Manifest:
    """The manifest, without hashes. Raises PackageError where edgellm cannot run what is there."""
    config = read_json(root / GENAI_CONFIG)
    model = _section(config, "model")
    decoder = _section(model, "decoder")
    _check_parts(root, model, decoder)
    graph = _open_graph(root, decoder)
    directory = ForeignDirectory(root, model, {WHOLE: graph})
    layout = _layout(graph, decoder, _growth(graph, config))
    target: Literal["cpu", "cuda"] = "cuda" if "cuda" in _providers(decoder) else "cpu"
    logits = graph.facts.outputs.get("logits")
    if logits is None:
        raise PackageError(f"{graph.file} has no output logits; it has {', '.join([*graph.facts.outputs][:4])}")
    vocab_size = size_of(logits.shape[-1] if logits.shape else "?", model, "vocab_size")
    return Manifest(
        task="text-generation",
        model_type=str(model.get("type", "unknown")),
        target=target,
        graphs={"model": GraphFile(graph.file, _inputs(graph, layout), ("logits",))},
        model=DecoderFacts(layout, _rope(root, graph, layout)),
        weights=weights_of(directory),
        vocab_size=vocab_size,
        context_length=min(size_of("?", model, "context_length"), MAX_SENSIBLE_LENGTH),
        tokens=TokenIds.of(model, vocab_size),
        files=directory.files(),
        source={"kind": "onnx", "name": root.resolve().name},
    )


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key, {})
    if not isinstance(value, dict):
        raise PackageError(f"{GENAI_CONFIG}: {key} is {str(value)[:40]!r}, expected an object")
    return value


def _check_parts(root: Path, model: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    """Raises PackageError for what is more than one graph, or needs what edgellm does not load."""
    others = [
        key for key, value in model.items() if key != "decoder" and isinstance(value, dict) and "filename" in value
    ]
    others += [key for key in ("encoder", "vision", "speech", "embedding") if key in model and key not in others]
    if "pipeline" in decoder:
        others.append("decoder.pipeline")
    if others:
        raise PackageError(f"{root} holds a model of several graphs ({', '.join(sorted(others))}): {WHAT_RUNS}")
    if _section(decoder, "session_options").get("custom_ops_library"):
        raise PackageError(f"{root} needs a library of operators (custom_ops_library), which edgellm does not load")
    window = _section(decoder, "sliding_window")
    moving = [key for key in ("slide_key_value_cache", "slide_inputs") if window and window.get(key, True)]
    if moving:
        raise PackageError(f"{root} has a cache that moves with a window ({', '.join(moving)}): {WHAT_RUNS}")


def _open_graph(root: Path, decoder: Mapping[str, Any]) -> Graph:
    file = decoder.get("filename")
    if not isinstance(file, str) or not file:
        raise PackageError(f"{GENAI_CONFIG} in {root} names no graph under model, decoder, filename: {WHAT_RUNS}")
    if not (root / file).is_file():
        raise PackageNotFoundError(f"{root} has no {file}, which its {GENAI_CONFIG} names; copy it there")
    return Graph(file, read_inside(root, file))


def _growth(graph: Graph, config: Mapping[str, Any]) -> Literal["in_place", "concat"]:
    """How the cache grows: in place where every layer's attention writes into the buffer it is given, and rows count
    their own tokens."""
    operators = graph.facts.operators
    shared = _section(config, "search").get("past_present_share_buffer", True) is not False
    whole = IN_PLACE in operators and not operators & CONCATENATE and "position_ids" not in graph.facts.inputs
    return "in_place" if shared and whole else "concat"


def _layout(graph: Graph, decoder: Mapping[str, Any], growth: Literal["in_place", "concat"]) -> CacheLayout:
    past, present = (
        _pattern(_section(decoder, part), names) for part, names in zip(("inputs", "outputs"), SIDES, strict=True)
    )
    layers = size_of("?", decoder, "num_hidden_layers")
    key = graph.facts.inputs.get(past.format(layer=0, side="key"))
    if key is None or len(key.shape) != 4 or key.dtype not in CACHE_TYPES or layers > len(graph.facts.inputs):
        found = [name for name in graph.facts.inputs if name not in FIXED_NAMES]
        what = f"{layers} layers, keys of {key.dtype} {list(key.shape)}" if key else f"inputs {found[:4]}"
        raise PackageError(
            f"{graph.file} has a cache that edgellm does not know ({what}); run it with onnxruntime-genai"
        )
    heads = size_of(key.shape[1], decoder, "num_key_value_heads", "num_attention_heads")
    head_dim = size_of(key.shape[3], decoder, "head_size")
    layout = CacheLayout(layers, heads, head_dim, key.dtype, growth, past, present)  # type: ignore[arg-type]
    for past_name, present_name in layout.names():
        if past_name not in graph.facts.inputs or present_name not in graph.facts.outputs:
            raise PackageError(f"{graph.file} has no {past_name} with {present_name}, which {GENAI_CONFIG} promises")
    return layout


def _pattern(names: Mapping[str, Any], keys: tuple[str, str]) -> str:
    """ "past_key_values.%d.key" and the like of values, as one pattern with {layer} and {side}."""
    stem = "past_key_values" if keys[0].startswith("past") else "present"
    key, value = (names.get(name, f"{stem}.%d.{side}") for name, side in zip(keys, ("key", "value"), strict=True))
    before, _, after = str(key).rpartition("key")
    pattern = f"{before}{{side}}{after}".replace("%d", "{layer}")
    plain = f"{before}{after}"
    if plain.count("%d") != 1 or "{" in plain or "}" in plain or value != f"{before}value{after}":
        raise PackageError(
            f"{GENAI_CONFIG}: {keys[0]} is {str(key)[:60]!r} and {keys[1]} {str(value)[:60]!r}, expected names that "
            "differ in key and value, with %d for the layer"
        )
    return pattern


def _inputs(graph: Graph, layout: CacheLayout) -> tuple[str, ...]:
    """The inputs that are no cache. Raises PackageError where there are some that nobody would fill."""
    pasts = {past for past, _ in layout.names()}
    names = [name for name in graph.facts.inputs if name not in pasts]
    known = INPUTS if layout.growth == "concat" else ("input_ids", "attention_mask")
    unknown, missing = sorted({*names} - {*known}), sorted({"input_ids", "attention_mask"} - {*names})
    if unknown:
        raise PackageError(f"{graph.file} has inputs that edgellm does not know: {', '.join(unknown[:8])}; {WHAT_RUNS}")
    if missing:
        raise PackageError(f"{graph.file} has no input {', '.join(missing)}: {WHAT_RUNS}")
    return tuple(names)


def _rope(root: Path, graph: Graph, layout: CacheLayout) -> Rope:
    """The graph's rotary tables. Raises PackageError where they change and the cache could not be computed anew."""
    rope = rope_of(root / graph.file, graph.facts)
    if rope.recompute_beyond is not None and layout.growth == "concat":
        raise PackageError(
            f"{graph.file} changes its rotary tables at {rope.recompute_beyond} tokens and concatenates its cache: "
            f"{WHAT_RUNS}"
        )
    return rope


def _providers(decoder: Mapping[str, Any]) -> list[str]:
    """The execution providers that the graph was made for; none for the CPU."""
    options = _section(decoder, "session_options").get("provider_options")
    entries = options if isinstance(options, list) else []
    return [str(name).lower() for entry in entries if isinstance(entry, dict) for name in entry]
