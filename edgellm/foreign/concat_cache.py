"""The caches that graphs take and give back longer: one key and one value for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import PackageError
from edgellm.foreign.config import size_of
from edgellm.foreign.files import ForeignDirectory, Graph, past_names
from edgellm.package.manifest import CacheLayout


def concat_layout(directory: ForeignDirectory, past: str, present: str) -> CacheLayout:
    """The layout of the graphs' cache. Raises PackageError for a cache that is not one key and one value of four
    dimensions per layer."""
    graph, config = directory.parts[-1], directory.config
    key, value = (graph.facts.inputs.get(past.format(layer=0, side=side)) for side in ("key", "value"))
    pasts = past_names(graph)
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
    heads = size_of(key.shape[1], config, "num_key_value_heads", "num_attention_heads", "n_head", "num_heads")
    head_dim = key.shape[3] if isinstance(key.shape[3], int) else _head_dim(config)
    return CacheLayout(layers, heads, head_dim, key.dtype, "concat", past, present)  # type: ignore[arg-type]


def check_concat_cache(
    directory: ForeignDirectory, own: Sequence[tuple[str, str]], across: Sequence[tuple[str, str]] = ()
) -> None:
    """Raises PackageError where the graphs lack tensors of these names, or have others.

    own: past and present names; across: the first run's output and the later runs' input, of each layer and side."""
    parts = directory.parts
    first, later = parts[0].facts, parts[-1].facts
    pasts = {*(past for past, _ in own), *(past for _, past in across)}
    presents = {present for _, present in own}
    complete = presents <= later.outputs.keys() and presents | {made for made, _ in across} <= first.outputs.keys()
    if not complete or pasts != set(past_names(parts[-1])):
        found = [name for name in later.outputs if name.startswith("present")]
        raise _unknown_cache(parts[-1], f"inputs {past_names(parts[-1])[:4]} and outputs {found[:4]}")


def _unknown_cache(graph: Graph, what: str) -> PackageError:
    return PackageError(
        f"{graph.file} has a cache that edgellm does not run ({what}), expected past_key_values.N.key and .value of "
        "[batch, heads, length, head size]; export the checkpoint again, with `edgellm export --via optimum`"
    )


def _head_dim(config: Mapping[str, Any]) -> int:
    if config.get("head_dim"):
        return size_of("?", config, "head_dim")
    hidden = size_of("?", config, "hidden_size", "n_embd", "d_model")
    return hidden // size_of("?", config, "num_attention_heads", "n_head", "num_heads")
