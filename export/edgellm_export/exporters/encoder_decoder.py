"""An encoder-decoder checkpoint becomes two graphs, encoder and decoder, that share the bytes of the embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgellm.errors import ExportError
from edgellm.package.manifest import (
    SPEECH_TASKS,
    CacheLayout,
    CrossCacheLayout,
    EncoderDecoderFacts,
    GraphFile,
    Manifest,
    Task,
)
from edgellm.package.report import Report
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress
from edgellm_export.architectures import open_family
from edgellm_export.architectures.contract import EncoderDecoderFamily, TakesGlobalAttention
from edgellm_export.blocks.build import Material, attention_names
from edgellm_export.calibration.texts import tokenized
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.exporters.contract import Choices, ForeseenExporter, check_global_attention
from edgellm_export.exporters.driver import Driver
from edgellm_export.exporters.recipe import Recipe, check_cuda
from edgellm_export.float_run.encoder_decoder import EncoderDecoderRun, Pair
from edgellm_export.graphs.encoder_decoder import CROSS_PAST, CROSS_PRESENT, PAST, PRESENT, build_decoder, build_encoder
from edgellm_export.graphs.merged import build_merged
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.package.side_files import check_generation, token_ids, write_generation_config
from edgellm_export.verification.encoder_decoder import evaluation_texts, pair_length, pairs_of, verify
from edgellm_export.verification.layers import WrittenPackage

ENCODER, DECODER = "encoder_model.onnx", "decoder_model.onnx"
MERGED = "decoder_model_merged.onnx"  # for optimum, which looks for this name first
SOURCE_INPUTS = ("input_ids", "attention_mask")
TARGET_INPUTS = ("input_ids", "decoder_attention_mask", "encoder_attention_mask", "logits_to_keep")
# Of calibration text, in tokens: each source and its target, and all sources.
LENGTH, TOKENS = 96, 1536


@dataclass(frozen=True)
class EncoderDecoderRecipe(Recipe[Pair]):
    family: EncoderDecoderFamily

    @property
    def original(self) -> EncoderDecoderRun:
        return EncoderDecoderRun(self.family, TensorReader(self.checkpoint.tensors))

    def manifest(self) -> Manifest[EncoderDecoderFacts]:
        tokens = token_ids(self.checkpoint, self.shape.vocab_size)
        if tokens.decoder_start is None:  # as in Hugging Face, targets then begin with the BOS token
            tokens = replace(tokens, decoder_start=tokens.bos)
        return self.described("text2text-generation", self._graph_files(), self._facts(), tokens)

    def describe(self, work: Path, manifest: Manifest[Any]) -> None:
        write_generation_config(work, self.checkpoint)

    def graphs(self, material: Material) -> Mapping[str, BuiltGraph]:
        encoder, decoder = (
            build(self.family, material, attentions=self.choices.attentions) for build in (build_encoder, build_decoder)
        )
        return {ENCODER: encoder, DECODER: decoder}

    def borrowers(self, material: Material) -> Mapping[str, BuiltGraph]:
        return {MERGED: build_merged(self.family, material)}

    def texts(self, work: Path, manifest: Manifest[Any]) -> Sequence[Pair]:
        length = pair_length(manifest, LENGTH)
        sequences = tokenized(work, self.choices.text, manifest.vocab_size, length, TOKENS)
        return pairs_of(sequences, manifest, length + 1)

    def measured(self, tokenizer: Tokenizer, manifest: Manifest[Any]) -> Sequence[Pair]:
        return evaluation_texts(tokenizer, manifest)[0]

    def verify(self, written: WrittenPackage[Any], progress: Progress) -> Report:
        return verify(written, self.original, progress)

    def _graph_files(self) -> Mapping[str, GraphFile]:
        watched = self.choices.attentions
        sources, targets = (self.family.source_layers, self.shape.num_layers) if watched else (0, 0)
        outputs = ("logits", *attention_names(targets), *attention_names(targets, across=True))
        return {
            "encoder": GraphFile(ENCODER, SOURCE_INPUTS, attention_names(sources)),
            "decoder": GraphFile(DECODER, TARGET_INPUTS, outputs),
        }

    def _facts(self) -> EncoderDecoderFacts:
        shape = self.shape
        dtype: Literal["float32", "float16"] = "float32" if self.choices.target == "cpu" else "float16"
        sizes = shape.num_layers, shape.num_kv_heads, shape.head_dim
        return EncoderDecoderFacts(
            CacheLayout(*sizes, dtype, past=_pattern(PAST), present=_pattern(PRESENT)),
            CrossCacheLayout(*sizes, dtype, past=_pattern(CROSS_PAST), present=_pattern(CROSS_PRESENT)),
            self.family.source_length,
            None if self.choices.global_attention == "none" else self.choices.global_attention,
            self.choices.target == "cpu" and self.family.counts_by_row,
        )


def open_encoder_decoder(checkpoint: Checkpoint, choices: Choices) -> ForeseenExporter:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    check_combination(choices, "text2text-generation")
    check_generation(checkpoint)
    family: EncoderDecoderFamily
    family, named = open_family(checkpoint)
    if not isinstance(family, TakesGlobalAttention):
        check_global_attention(choices)
    elif choices.global_attention == "first":
        family = family.with_global_attention()
    return Driver(EncoderDecoderRecipe(named, choices, family.names, family.shape, family))


def check_combination(choices: Choices, task: Task) -> None:
    """Raises ExportError where the choices are not for an encoder-decoder, which does `task`."""
    if choices.task not in (None, task):
        what = "a model of speech" if task in SPEECH_TASKS else "an encoder-decoder"
        raise ExportError(f"{what} is for {task}, not for {choices.task}; leave out the task")
    if choices.kv_cache == "int8":
        raise ExportError("encoder-decoders have a float key/value cache only; leave out --kv-cache int8")
    if choices.attentions and choices.target == "cuda":
        raise ExportError(
            "attention weights come from the CPU's kernels only; with --attentions, leave out --target cuda"
        )
    check_cuda(choices)


def _pattern(name: str) -> str:
    return name.format("{layer}", "{side}")
