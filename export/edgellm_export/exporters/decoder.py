"""A decoder-only checkpoint becomes one graph with a key/value cache that is updated in place."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from edgellm.errors import ExportError
from edgellm.package.manifest import CacheLayout, DecoderFacts, GraphFile, KVCacheType, Manifest, Rope, Target, Weights
from edgellm.types import Progress, TokenArray
from edgellm_export.architectures import open_family
from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.architectures.names import canonical
from edgellm_export.blocks.build import CacheScales, attention_names
from edgellm_export.blocks.rope import needs_length_input
from edgellm_export.calibration.cache_scales import cache_scales
from edgellm_export.calibration.rounding import NOT_CALIBRATED, Calibration, calibrate_layers
from edgellm_export.calibration.texts import tokenized
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.exporters.contract import Choices, Outline, Written
from edgellm_export.exporters.outline import expected_scheme
from edgellm_export.float_run.decoder import FLOAT, FloatRun, PackageLayers
from edgellm_export.float_run.segments import DataFile
from edgellm_export.graphs.decoder import build_decoder
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.onnx.writer import outline_graph, write_graph
from edgellm_export.package.genai_config import genai_config
from edgellm_export.package.output import disk_errors
from edgellm_export.package.side_files import (
    GRAPH,
    generation_config,
    token_ids,
    versions,
    write_generation_config,
    write_json,
)
from edgellm_export.quantize import WeightScheme, scheme_for
from edgellm_export.verification.decoder import verify

# Of calibration text, in tokens: each sequence and all of them.
WEIGHTS_LENGTH, WEIGHTS_TOKENS = 128, 2048
CACHE_LENGTH, CACHE_TOKENS = 256, 4096


@dataclass(frozen=True)
class DecoderExport:
    """Implements `steps.Exporter`."""

    checkpoint: Checkpoint
    architecture: DecoderFamily

    def write(self, work: Path, choices: Choices, progress: Progress) -> Written:
        architecture = self.architecture
        manifest = self._describe(work, choices)
        original = FloatRun(architecture, TensorReader(self.checkpoint.tensors))
        tensors = _account(self.checkpoint, architecture)
        cache = _calibrate_cache(work, original, manifest, choices, progress) if choices.kv_cache == "int8" else []
        with tempfile.TemporaryDirectory(dir=work) as matrices:
            calibrated = NOT_CALIBRATED
            if choices.calibrate:
                calibrated = _calibrate(work, Path(matrices), original, manifest, choices, progress)
            scheme = scheme_for(choices.precision, choices.target).calibrated(calibrated.prepared)
            built = build_decoder(
                architecture, tensors, scheme, calibrated.scales, cache, attentions=choices.attentions
            )
            offsets = write_graph(built, work / GRAPH, progress=lambda *done: progress("weights", *done))
        data = DataFile(work / f"{GRAPH}.data", offsets)
        layers = PackageLayers(architecture, tensors, scheme, calibrated.scales, cache, data)
        return Written(
            replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)),
            lambda sealed: verify(work, sealed, original, layers, calibrated, progress),
        )

    def outline(self, work: Path, choices: Choices) -> Outline:
        architecture, shape = self.architecture, self.architecture.shape
        manifest, tensors = self._describe(work, choices), _account(self.checkpoint, architecture)
        ones = np.ones((shape.num_kv_heads, shape.head_dim), np.float32)
        cache = [CacheScales(ones, ones)] * shape.num_layers if choices.kv_cache == "int8" else []

        def build(scheme: WeightScheme) -> BuiltGraph:
            return build_decoder(architecture, tensors, scheme, cache_scales=cache, attentions=choices.attentions)

        scheme = expected_scheme(choices, self.checkpoint, build(FLOAT).projections)
        built = build(scheme)
        outline_graph(built, work / GRAPH)
        return Outline(replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)), built.projections)

    def _describe(self, work: Path, choices: Choices) -> Manifest[DecoderFacts]:
        """The manifest, and the files that say the same to other programs."""
        manifest = _manifest(self.checkpoint, self.architecture, choices)
        generation = generation_config(self.checkpoint)
        write_generation_config(work, self.checkpoint, manifest.tokens)
        known = self.architecture.known_to_genai
        write_json(work / "genai_config.json", genai_config(manifest, self.checkpoint.config, generation, known=known))
        return manifest


def open_decoder(checkpoint: Checkpoint, choices: Choices) -> DecoderExport:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    _check_combination(choices)
    architecture: DecoderFamily = open_family(checkpoint.config)
    return DecoderExport(canonical(checkpoint, architecture.names), architecture)


def _manifest(checkpoint: Checkpoint, architecture: DecoderFamily, choices: Choices) -> Manifest[DecoderFacts]:
    """The manifest, still without its files' hashes."""
    shape = architecture.shape
    rope = Rope(needs_length_input(shape.ropes), shape.recompute_beyond)
    inputs = ("input_ids", "attention_mask", "logits_to_keep", *(("rope_length",) if rope.has_length_input else ()))
    dtype = _cache_type(choices.target, choices.kv_cache)
    scheme = scheme_for(choices.precision, choices.target)
    layers = shape.num_layers if choices.attentions else 0
    return Manifest(
        task="text-generation",
        model_type=str(checkpoint.config["model_type"]),
        target=choices.target,
        graphs={"model": GraphFile(GRAPH, inputs, ("logits", *attention_names(layers)))},
        model=DecoderFacts(CacheLayout(shape.num_layers, shape.num_kv_heads, shape.head_dim, dtype), rope),
        weights=Weights(choices.precision, scheme.name, shape.tied_embedding),
        vocab_size=shape.vocab_size,
        context_length=shape.context_length,
        tokens=token_ids(checkpoint, shape.vocab_size),
        source=dict(checkpoint.source),
        versions=versions(),
    )


def _cache_type(target: Target, kv_cache: KVCacheType) -> Literal["float32", "float16", "int8"]:
    if kv_cache == "int8":
        return "int8"
    return "float32" if target == "cpu" else "float16"


def _account(checkpoint: Checkpoint, architecture: DecoderFamily) -> TensorReader:
    """The checkpoint's tensors, after a dry run that finds all that are missing, misshapen or left over."""
    ignored = architecture.names.ignored(tied=architecture.shape.tied_embedding)
    tensors = TensorReader(checkpoint.tensors, ignore=ignored)
    build_decoder(architecture, tensors, scheme_for("fp32", "cpu"))
    tensors.finish()
    return tensors


def _calibrate(
    work: Path, matrices: Path, original: FloatRun, manifest: Manifest, choices: Choices, progress: Progress
) -> Calibration:
    """Channel scales and rounded matrices, the latter as files in `matrices`. None where there is nothing to round, or
    no tokenizer."""
    candidates = scheme_for(choices.precision, choices.target).candidates
    sequences = _tokens(work, manifest, choices, WEIGHTS_LENGTH, WEIGHTS_TOKENS) if candidates else []
    if not sequences:
        return NOT_CALIBRATED
    with disk_errors(work):
        return calibrate_layers(
            original,
            sequences,
            choices.text.origin,
            candidates,
            matrices,
            lambda done, total: progress("calibrate", done, total),
        )


def _calibrate_cache(
    work: Path, original: FloatRun, manifest: Manifest, choices: Choices, progress: Progress
) -> Sequence[CacheScales]:
    """Scales for an int8 key/value cache. Raises ExportError where there is no text to find them with."""
    sequences = _tokens(work, manifest, choices, CACHE_LENGTH, CACHE_TOKENS)
    if not sequences:
        raise ExportError(
            "an int8 key/value cache needs scales from calibration text, and the checkpoint has no tokenizer that "
            f"makes {min(CACHE_LENGTH, manifest.context_length)} tokens of it; export with the tokenizer's files, or "
            "with --kv-cache float"
        )
    return cache_scales(original, sequences, lambda done, total: progress("calibrate cache", done, total))


def _tokens(work: Path, manifest: Manifest, choices: Choices, length: int, count: int) -> list[TokenArray]:
    """Calibration text in sequences of `length` or what the context holds."""
    return tokenized(work, choices.text, manifest.vocab_size, min(length, manifest.context_length), count)


def _check_combination(choices: Choices) -> None:
    if choices.target == "cuda" and choices.precision == "fp32":
        raise ExportError(
            "CUDA's attention kernel has no float32; export with --precision fp16 for CUDA, or fp32 for the CPU"
        )
    if choices.attentions and (choices.target == "cuda" or choices.kv_cache == "int8"):
        raise ExportError(
            "attention weights come from the CPU's kernel with a float cache only; with --attentions, leave out "
            "--target cuda and --kv-cache int8"
        )
    if choices.target == "cuda" and choices.kv_cache == "int8":
        raise ExportError(
            "packages for CUDA have a float16 key/value cache only; leave out --kv-cache int8, or export for the CPU"
        )
