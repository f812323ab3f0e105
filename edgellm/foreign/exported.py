"""What optimum-cli writes, and the ONNX community's layout:

    config.json  tokenizer.json  generation_config.json ...
    model.onnx, or decoder_model_merged.onnx, or decoder_model.onnx and decoder_with_past_model.onnx
    encoder_model.onnx, beside a decoder
    (or these in onnx/, with suffixes such as _fp16 or _quantized for other precisions)

The manifest that such a directory lacks is made from config.json and from the graphs' own inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.engines.concat.encoder_decoder_graphs import DECODER_INPUTS, ENCODER_INPUTS
from edgellm.engines.concat.graph import INPUTS
from edgellm.errors import PackageNotFoundError
from edgellm.foreign.concat_cache import check_concat_cache, concat_layout
from edgellm.foreign.config import (
    context_length_of,
    has_no_end,
    token_ids_of,
    tokenizer_length,
    usable_positions,
    vocab_size_of,
    weights_of,
)
from edgellm.foreign.encoder import encoder_kind
from edgellm.foreign.files import (
    CONFIG,
    ENCODER,
    Graph,
    decoder_parts,
    graph_file,
    listed_files,
    locate,
    past_names,
    read_inside,
)
from edgellm.foreign.kind import Kind
from edgellm.package.json_file import read_json
from edgellm.package.manifest import CrossCacheLayout, DecoderFacts, EncoderDecoderFacts, Manifest


def read_exported(path: Path) -> tuple[Path, Manifest]:
    """The directory, and a manifest without hashes. Raises PackageError where edgellm cannot run what is there.

    `path`: the directory, or one of its graphs, whose suffix then chooses among several precisions.
    """
    root, files = locate(path)
    if not (root / CONFIG).is_file():
        raise PackageNotFoundError(f"{root} has ONNX graphs and no {CONFIG}; add that of their checkpoint")
    config = read_json(root / CONFIG)
    graphs = {role: Graph(file, read_inside(root, file)) for role, file in files.items()}
    parts = decoder_parts(root, graphs)
    context_length = context_length_of(root, config)
    if ENCODER in graphs:
        kind = _encoder_decoder(graphs[ENCODER], parts, config, context_length)
    elif past_names(parts[-1]):
        kind = _decoder(parts, config)
    else:
        context_length = min(usable_positions(config, context_length), tokenizer_length(root))
        kind = encoder_kind(root, parts[0], config, context_length)
    used = [graph for graph in graphs.values() if graph in (*parts, graphs.get(ENCODER))]
    vocab_size = vocab_size_of(parts[0], config)
    return root, Manifest(
        model_type=str(config.get("model_type", "unknown")),
        target="cpu",
        weights=weights_of(parts),
        vocab_size=vocab_size,
        context_length=context_length,
        tokens=token_ids_of(read_json(root / "generation_config.json"), config, vocab_size),
        files=listed_files(root, used),
        source={"kind": "onnx", "name": root.resolve().name},
        **kind,
    )


def _decoder(parts: Sequence[Graph], config: Mapping[str, Any]) -> Kind:
    layout = concat_layout(parts, config, "past_key_values.{layer}.{side}", "present.{layer}.{side}")
    check_concat_cache(parts, layout.names(), [])
    names = ("model",) if len(parts) == 1 else ("first", "later")
    graphs = {name: graph_file(part, INPUTS, ("logits",)) for name, part in zip(names, parts, strict=True)}
    return Kind(task="text-generation", graphs=graphs, model=DecoderFacts(layout))


def _encoder_decoder(encoder: Graph, parts: Sequence[Graph], config: Mapping[str, Any], context: int) -> Kind:
    side = "past_key_values.{layer}.%s.{side}", "present.{layer}.%s.{side}"
    own = concat_layout(parts, config, *(pattern % "decoder" for pattern in side))
    past, present = (pattern % "encoder" for pattern in side)
    assert own.dtype != "int8"
    across = CrossCacheLayout(own.num_layers, own.num_kv_heads, own.head_dim, own.dtype, past, present)
    check_concat_cache(parts, own.names(), across.names())
    names = ("decoder",) if len(parts) == 1 else ("first", "later")
    graphs = {name: graph_file(part, DECODER_INPUTS, ("logits",)) for name, part in zip(names, parts, strict=True)}
    return Kind(
        task="text2text-generation",
        graphs={"encoder": graph_file(encoder, ENCODER_INPUTS, ("last_hidden_state",)), **graphs},
        model=EncoderDecoderFacts(own, across, None if has_no_end(config) else context),
    )
