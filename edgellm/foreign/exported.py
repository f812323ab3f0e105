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
from typing import Any, TypedDict, get_args

from edgellm.engines.concat.encoder_decoder_graphs import DECODER_INPUTS, ENCODER_INPUTS
from edgellm.engines.concat.graph import INPUTS
from edgellm.errors import PackageError
from edgellm.foreign.concat_cache import check_concat_cache, concat_layout
from edgellm.foreign.config import context_length_of, has_no_end, text_length_of, vocab_size_of, weights_of
from edgellm.foreign.files import ENCODER, ForeignDirectory, graph_file, open_directory, past_names
from edgellm.package.generation import read_settings
from edgellm.package.manifest import (
    LABEL_TASKS,
    CrossCacheLayout,
    DecoderFacts,
    EncoderDecoderFacts,
    EncoderFacts,
    GraphFile,
    Manifest,
    ModelFacts,
    Problem,
    Task,
    TokenIds,
)
from edgellm.package.sentence import read_embedding

MASKED = ("ForMaskedLM", "XLMWithLMHeadModel", "FlaubertWithLMHeadModel")  # ends of names of classes
MAX_LABELS = 1 << 20
MIXES_ROWS = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}  # operators with one scale for a whole batch


class KindFields(TypedDict):
    """The fields of a manifest that each kind of model finds in its own way."""

    task: Task
    graphs: Mapping[str, GraphFile]
    model: ModelFacts
    context_length: int


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
        tokens=TokenIds.of(read_settings(root), vocab_size),
        files=directory.files(),
        source={"kind": "onnx", "name": root.resolve().name},
        **_kind(directory),
    )


def _kind(directory: ForeignDirectory) -> KindFields:
    if ENCODER in directory.graphs:
        return _encoder_decoder(directory)
    return _decoder(directory) if past_names(directory.parts[-1]) else _encoder(directory)


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
    assert own.dtype != "bfloat16"
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


def _encoder(directory: ForeignDirectory) -> KindFields:
    """An encoder-only model: its head shows in the outputs, and in the name of the checkpoint's class."""
    root, config, graph = directory.root, directory.config, directory.parts[0]
    context_length = text_length_of(directory)
    outputs, architectures = graph.facts.outputs, config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    task: Task | None = None
    if "start_logits" in outputs and "end_logits" in outputs:
        task = "question-answering"
    elif "logits" in outputs and len(outputs["logits"].shape) == 2:
        task = "text-classification"
    elif "logits" in outputs and name.endswith("ForTokenClassification"):
        task = "token-classification"
    elif "logits" in outputs and name.endswith(MASKED):
        task = "fill-mask"
    elif "last_hidden_state" in outputs:
        task = "feature-extraction"
    if task is None:
        raise PackageError(
            f"{root} holds {graph.file} with outputs {', '.join(list(outputs)[:4])}: edgellm runs encoders with their "
            "heads, and decoders that were exported with their past, as `--task text-generation-with-past` does"
        )
    wanted = {"question-answering": ("start_logits", "end_logits"), "feature-extraction": ("last_hidden_state",)}
    file = graph_file(graph, ("input_ids", "attention_mask", "token_type_ids"), wanted.get(task, ("logits",)))
    labels = _labels(config, (outputs["logits"].shape or ("?",))[-1]) if task in LABEL_TASKS else ()
    problem = config.get("problem_type")
    facts = EncoderFacts(
        labels=labels,
        problem_type=problem if task == "text-classification" and problem in get_args(Problem) else None,
        embedding=read_embedding(root, context_length) if task == "feature-extraction" else None,
        rows_apart=bool(MIXES_ROWS & graph.facts.operators),
    )
    return KindFields(task=task, graphs={"model": file}, model=facts, context_length=context_length)


def _labels(config: Mapping[str, Any], outputs: int | str) -> tuple[str, ...]:
    named = config.get("id2label")
    named = named if isinstance(named, dict) else {}
    count = outputs if isinstance(outputs, int) else len(named) or 2
    if not 0 < count <= MAX_LABELS:
        raise PackageError(f"its outputs have {count} classes, expected 1 to {MAX_LABELS}")
    return tuple(str(named.get(str(i), f"LABEL_{i}")) for i in range(count))
