"""Exports of encoder-decoders: two graphs, encoder and decoder, that share the bytes of the embedding."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from edgellm.errors import ExportError
from edgellm.package.manifest import (
    CacheLayout,
    CrossCacheLayout,
    EncoderDecoderFacts,
    GraphFile,
    Manifest,
    TokenIds,
    Weights,
)
from edgellm.types import FloatArray, Progress
from edgellm_export.architectures import open_family
from edgellm_export.architectures.contract import EncoderDecoderFamily
from edgellm_export.architectures.names import canonical
from edgellm_export.blocks.build import attention_names
from edgellm_export.blocks.channels import ChannelScales
from edgellm_export.calibration.rounding import NOT_CALIBRATED, Calibration, channel_scales, rounded_linear
from edgellm_export.calibration.texts import tokenized
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.exporters.contract import Choices, Outline, Written
from edgellm_export.exporters.outline import expected_scheme
from edgellm_export.float_run.decoder import ObservedLinear
from edgellm_export.float_run.encoder_decoder import EncoderDecoderRun, PackageParts, Pair
from edgellm_export.float_run.segments import DataFile, DataFiles
from edgellm_export.graphs.encoder_decoder import CROSS_PAST, CROSS_PRESENT, PAST, PRESENT, build_decoder, build_encoder
from edgellm_export.graphs.merged import build_merged
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.onnx.writer import outline_graph, write_graph
from edgellm_export.package.output import disk_errors
from edgellm_export.package.side_files import token_ids, versions, write_generation_config
from edgellm_export.quantize import WeightScheme, scheme_for
from edgellm_export.quantize.formats import MatrixFormat
from edgellm_export.quantize.prepared import PreparedMatrix
from edgellm_export.verification.encoder_decoder import pair_length, pairs_of, verify

ENCODER, DECODER = "encoder_model.onnx", "decoder_model.onnx"
MERGED = "decoder_model_merged.onnx"  # for optimum, which looks for this name first
# Of calibration text, in tokens: each source and its target, and all sources.
LENGTH, TOKENS = 96, 1536


@dataclass(frozen=True)
class EncoderDecoderExport:
    """Implements `steps.Exporter`."""

    checkpoint: Checkpoint
    architecture: EncoderDecoderFamily

    def write(self, work: Path, choices: Choices, progress: Progress) -> Written:
        architecture = self.architecture
        manifest = _manifest(self.checkpoint, architecture, choices)
        write_generation_config(work, self.checkpoint, manifest.tokens)
        original = EncoderDecoderRun(architecture, TensorReader(self.checkpoint.tensors))
        tensors = _account(self.checkpoint, architecture)
        with tempfile.TemporaryDirectory(dir=work) as matrices:
            calibrated = NOT_CALIBRATED
            if choices.calibrate:
                calibrated = _calibrate(work, Path(matrices), original, manifest, choices, progress)
            scheme = scheme_for(choices.precision, choices.target).calibrated(calibrated.prepared)
            encoder, decoder = (
                build(architecture, tensors, scheme, calibrated.scales, attentions=choices.attentions)
                for build in (build_encoder, build_decoder)
            )
            data = _write(work, encoder, decoder, progress, write_graph)
            _write_merged(work, build_merged(architecture, tensors, scheme, calibrated.scales), data)
        parts = PackageParts(architecture, tensors, scheme, calibrated.scales, data)
        return Written(
            replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)),
            lambda sealed: verify(work, sealed, original, parts, calibrated, progress),
        )

    def outline(self, work: Path, choices: Choices) -> Outline:
        architecture, tensors = self.architecture, _account(self.checkpoint, self.architecture)
        manifest = _manifest(self.checkpoint, architecture, choices)
        write_generation_config(work, self.checkpoint, manifest.tokens)

        def build(scheme: WeightScheme) -> tuple[BuiltGraph, BuiltGraph]:
            attentions = choices.attentions
            encoder = build_encoder(architecture, tensors, scheme, attentions=attentions)
            return encoder, build_decoder(architecture, tensors, scheme, attentions=attentions)

        projections = [each for graph in build(scheme_for("fp32", "cpu")) for each in graph.projections]
        scheme = expected_scheme(choices, self.checkpoint, projections)
        data = _write(work, *build(scheme), lambda step, done, total: None, outline_graph)
        _write_merged(work, build_merged(architecture, tensors, scheme, {}), data)
        return Outline(replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)), projections)


def open_exporter(checkpoint: Checkpoint, choices: Choices) -> EncoderDecoderExport:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    if choices.task not in (None, "text2text-generation"):
        raise ExportError(f"an encoder-decoder is for text2text-generation, not for {choices.task}; leave out the task")
    if choices.kv_cache == "int8":
        raise ExportError("encoder-decoders have a float key/value cache only; leave out --kv-cache int8")
    if choices.attentions and choices.target == "cuda":
        raise ExportError(
            "attention weights come from the CPU's kernels only; with --attentions, leave out --target cuda"
        )
    if choices.target == "cuda" and choices.precision == "fp32":
        raise ExportError(
            "CUDA's attention kernel has no float32; export with --precision fp16 for CUDA, or fp32 for the CPU"
        )
    architecture: EncoderDecoderFamily = open_family(checkpoint.config)
    return EncoderDecoderExport(canonical(checkpoint, architecture.names, architecture.defaults), architecture)


def _manifest(
    checkpoint: Checkpoint, architecture: EncoderDecoderFamily, choices: Choices
) -> Manifest[EncoderDecoderFacts]:
    """The manifest, still without its files' hashes."""
    shape = architecture.shape
    dtype: Literal["float32", "float16"] = "float32" if choices.target == "cpu" else "float16"
    layers, heads, head_dim = shape.num_layers, shape.num_kv_heads, shape.head_dim
    inputs = ("input_ids", "decoder_attention_mask", "encoder_attention_mask", "logits_to_keep")
    watched = (architecture.source_layers, layers) if choices.attentions else (0, 0)
    return Manifest(
        task="text2text-generation",
        model_type=str(checkpoint.config["model_type"]),
        target=choices.target,
        graphs={
            "encoder": GraphFile(ENCODER, ("input_ids", "attention_mask"), attention_names(watched[0])),
            "decoder": GraphFile(
                DECODER,
                inputs,
                ("logits", *attention_names(watched[1]), *attention_names(watched[1], across=True)),
            ),
        },
        model=EncoderDecoderFacts(
            CacheLayout(layers, heads, head_dim, dtype, past=_pattern(PAST), present=_pattern(PRESENT)),
            CrossCacheLayout(
                layers, heads, head_dim, dtype, past=_pattern(CROSS_PAST), present=_pattern(CROSS_PRESENT)
            ),
            architecture.source_length,
        ),
        weights=Weights(choices.precision, scheme_for(choices.precision, choices.target).name, shape.tied_embedding),
        vocab_size=shape.vocab_size,
        context_length=shape.context_length,
        tokens=_tokens(checkpoint, shape.vocab_size),
        source=dict(checkpoint.source),
        versions=versions(),
    )


def _tokens(checkpoint: Checkpoint, vocab_size: int) -> TokenIds:
    """As in Hugging Face, targets begin with the BOS token where nothing else is said."""
    tokens = token_ids(checkpoint, vocab_size)
    return tokens if tokens.decoder_start is not None else replace(tokens, decoder_start=tokens.bos)


def _pattern(name: str) -> str:
    return name.format("{layer}", "{side}")


def _account(checkpoint: Checkpoint, architecture: EncoderDecoderFamily) -> TensorReader:
    """The checkpoint's tensors, after a dry run that finds all that are missing, misshapen or left over."""
    ignored = architecture.names.ignored(tied=architecture.shape.tied_embedding)
    tensors = TensorReader(checkpoint.tensors, ignore=ignored)
    scheme = scheme_for("fp32", "cpu")
    build_encoder(architecture, tensors, scheme)
    build_decoder(architecture, tensors, scheme)
    tensors.finish()
    return tensors


def _write(
    work: Path, encoder: BuiltGraph, decoder: BuiltGraph, progress: Progress, write: Callable[..., dict[str, int]]
) -> DataFiles:
    """Both graphs, by `write`. What the decoder has in common with the encoder is read from the encoder's file."""
    sizes = [sum(r.nbytes for p in graph.produced for r in p.regions) for graph in (encoder, decoder)]

    def report(before: int) -> Callable[[int, int], None]:
        return lambda done, _: progress("weights", before + done, max(1, sum(sizes)))

    first = DataFile(work / f"{ENCODER}.data", write(encoder, work / ENCODER, progress=report(0)))
    own = _borrowing(decoder, first)
    second = DataFile(work / f"{DECODER}.data", write(own, work / DECODER, progress=report(sizes[0])))
    progress("weights", max(1, sum(sizes)), max(1, sum(sizes)))
    return DataFiles([first, second])


def _write_merged(work: Path, merged: BuiltGraph, data: DataFiles) -> None:
    """The graph for optimum, all of whose weights lie in `data`."""
    for file in data.files:
        merged = _borrowing(merged, file)
    assert not merged.stored, "the graph for optimum has weights of its own"
    with disk_errors(work):
        ir.save(merged.model, work / MERGED)


def _borrowing(graph: BuiltGraph, data: DataFile) -> BuiltGraph:
    """`graph` with the regions that `data` holds read from there; what is left are its own."""
    own = []
    for stored in graph.stored:
        region = stored.region
        if region.name not in data.offsets:
            own.append(stored)
            continue
        stored.value.const_value = ir.ExternalTensor(
            data.path.name, data.offsets[region.name], region.nbytes, ir.DataType.from_numpy(region.dtype),
            shape=stored.value.shape or ir.Shape(region.shape), name=str(stored.value.name), base_dir=data.path.parent,
        )  # fmt: skip
    produced = [group for group in graph.produced if group.regions[0].name not in data.offsets]
    return replace(graph, stored=own, produced=produced)


def _calibrate(
    work: Path,
    matrices: Path,
    original: EncoderDecoderRun,
    manifest: Manifest[EncoderDecoderFacts],
    choices: Choices,
    progress: Progress,
) -> Calibration:
    """Channel scales and rounded matrices, the latter as files in `matrices`. None where there is nothing to round, or
    no tokenizer."""
    candidates = scheme_for(choices.precision, choices.target).candidates
    length = pair_length(manifest, LENGTH)
    sequences = tokenized(work, choices.text, manifest.vocab_size, length, TOKENS) if candidates else []
    if not sequences:
        return NOT_CALIBRATED
    pairs = pairs_of(sequences, manifest, length + 1)
    with disk_errors(work):
        return _Calibrator(original, candidates, matrices, progress).run(pairs, choices.text.origin)


@dataclass(frozen=True)
class _Calibrator:
    """Walks through the encoder, then through the decoder, a layer in memory at a time."""

    original: EncoderDecoderRun
    candidates: Sequence[MatrixFormat]
    directory: Path
    progress: Progress
    scales: dict[str, FloatArray] = field(default_factory=dict)
    prepared: dict[str, PreparedMatrix] = field(default_factory=dict)

    def run(self, pairs: Sequence[Pair], origin: str) -> Calibration:
        run = self.original
        layers = run.architecture.source_layers, run.architecture.shape.num_layers
        states = run.embed_sources(pairs)
        for index in range(layers[0]):
            states, linears = run.source_layer(index, pairs, states, observe=True)
            self._round(linears, partial(run.source_layer_weights, index))
            self.progress("calibrate", index + 1, sum(layers))
        encoded, states = run.encoded(states), run.embed_targets(pairs)
        for index in range(layers[1]):
            states, linears = run.layer(index, pairs, states, encoded, observe=True)
            self._round(linears, partial(run.layer_weights, index))
            self.progress("calibrate", layers[0] + index + 1, sum(layers))
        text = f"{sum(len(pair.source) + len(pair.target) for pair in pairs)} tokens of {origin}"
        return Calibration(text, self.scales, self.prepared)

    def _round(
        self, linears: Sequence[ObservedLinear], weights: Callable[[ChannelScales], dict[str, LazyTensor]]
    ) -> None:
        """`weights`: the layer's matrices as scales change them."""
        self.scales.update(channel_scales(linears))
        matrices = weights(self.scales)
        for linear in linears:
            file = self.directory / f"{len(self.prepared)}.npy"
            self.prepared[linear.name] = rounded_linear(
                linear, matrices[linear.name], self.scales, self.candidates, file
            )
