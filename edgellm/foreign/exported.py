"""What optimum-cli writes, and the ONNX community's layout:

    config.json  tokenizer.json  generation_config.json ...
    model.onnx, or decoder_model_merged.onnx, or decoder_model.onnx and decoder_with_past_model.onnx
    encoder_model.onnx, beside a decoder
    (or these in onnx/, with suffixes such as _fp16 or _quantized for other precisions)

The manifest that such a directory lacks is made from config.json and from the graphs' own inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgellm.engines.concat.encoder_decoder_graphs import DECODER_INPUTS, ENCODER_INPUTS
from edgellm.engines.concat.graph import INPUTS
from edgellm.foreign.concat_cache import check_concat_cache, concat_layout
from edgellm.foreign.config import context_length_of, has_no_end, vocab_size_of, weights_of
from edgellm.foreign.encoder import encoder_kind
from edgellm.foreign.files import ENCODER, ForeignDirectory, graph_file, open_directory, past_names
from edgellm.foreign.kind import KindFields
from edgellm.package.json_file import read_json
from edgellm.package.manifest import CrossCacheLayout, DecoderFacts, EncoderDecoderFacts, GraphFile, Manifest, TokenIds


def read_exported(path: Path) -> tuple[Path, Manifest]:
    """The directory, and a manifest without hashes. Raises PackageError where edgellm cannot run what is there.

    `path`: the directory, or one of its graphs, whose suffix then chooses among several precisions.
    """
    directory = open_directory(path)
    root, config = directory.root, directory.config
    vocab_size = vocab_size_of(directory)
    return root, Manifest(
        model_type=str(config.get("model_type", "unknown")),
        target="cpu",
        weights=weights_of(directory),
        vocab_size=vocab_size,
        tokens=TokenIds.of(read_json(root / "generation_config.json"), config, vocab_size),
        files=directory.files(),
        source={"kind": "onnx", "name": root.resolve().name},
        **_kind(directory),
    )


def _kind(directory: ForeignDirectory) -> KindFields:
    if ENCODER in directory.graphs:
        return _encoder_decoder(directory)
    return _decoder(directory) if past_names(directory.parts[-1]) else encoder_kind(directory)


def _decoder(directory: ForeignDirectory) -> KindFields:
    layout = concat_layout(directory, "past_key_values.{layer}.{side}", "present.{layer}.{side}")
    check_concat_cache(directory, layout.names())
    return KindFields(
        task="text-generation",
        graphs=_graphs(directory, "model", INPUTS),
        model=DecoderFacts(layout),
        context_length=context_length_of(directory),
    )


def _encoder_decoder(directory: ForeignDirectory) -> KindFields:
    side = "past_key_values.{layer}.%s.{side}", "present.{layer}.%s.{side}"
    own = concat_layout(directory, *(pattern % "decoder" for pattern in side))
    past, present = (pattern % "encoder" for pattern in side)
    assert own.dtype != "int8"
    across = CrossCacheLayout(own.num_layers, own.num_kv_heads, own.head_dim, own.dtype, past, present)
    check_concat_cache(directory, own.names(), across.names())
    context = context_length_of(directory)
    decoder = _graphs(directory, "decoder", DECODER_INPUTS)
    return KindFields(
        task="text2text-generation",
        graphs={"encoder": graph_file(directory.graphs[ENCODER], ENCODER_INPUTS, ("last_hidden_state",)), **decoder},
        model=EncoderDecoderFacts(own, across, None if has_no_end(directory) else context),
        context_length=context,
    )


def _graphs(directory: ForeignDirectory, whole: str, inputs: Sequence[str]) -> dict[str, GraphFile]:
    """The decoder's graph by the name `whole`, or its two as first and later."""
    names = (whole,) if len(directory.parts) == 1 else ("first", "later")
    return {name: graph_file(part, inputs, ("logits",)) for name, part in zip(names, directory.parts, strict=True)}
