"""A decoder-only checkpoint becomes one graph with a key/value cache that is updated in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgellm.errors import ExportError
from edgellm.package.manifest import CacheLayout, ConvLayout, DecoderFacts, GraphFile, Manifest, Rope
from edgellm.package.report import Report
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress, TokenArray
from edgellm_export.architectures import open_family
from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.blocks.build import CacheScales, DecoderShape, Material, attention_names
from edgellm_export.blocks.rope import needs_length_input
from edgellm_export.calibration.cache_scales import cache_scales
from edgellm_export.calibration.texts import tokenized
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.exporters.contract import Choices, ForeseenExporter
from edgellm_export.exporters.driver import Driver
from edgellm_export.exporters.recipe import Recipe, check_cuda
from edgellm_export.float_run.decoder import DecoderRun
from edgellm_export.graphs.decoder import build_decoder
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.package.genai_config import genai_config
from edgellm_export.package.side_files import (
    GRAPH,
    check_generation,
    generation_config,
    token_ids,
    write_generation_config,
    write_json,
)
from edgellm_export.verification.decoder import evaluation_texts, verify
from edgellm_export.verification.layers import WrittenPackage

# Of calibration text, in tokens: each sequence and all of them.
WEIGHTS_LENGTH, WEIGHTS_TOKENS = 128, 2048
CACHE_LENGTH, CACHE_TOKENS = 256, 4096

CUDA_HEAD_DIM = 256  # which ONNX Runtime's operator takes in all of its versions


@dataclass(frozen=True)
class DecoderRecipe(Recipe[TokenArray]):
    family: DecoderFamily

    @property
    def original(self) -> DecoderRun:
        return DecoderRun(self.family, TensorReader(self.checkpoint.tensors))

    def manifest(self) -> Manifest[DecoderFacts]:
        shape = self.shape
        rope = Rope(needs_length_input(shape.ropes), shape.recompute_beyond)
        length = ("rope_length",) if rope.has_length_input else ()
        inputs = ("input_ids", "attention_mask", "logits_to_keep", *length)
        outputs = ("logits", *attention_names(shape.num_attention_layers if self.choices.attentions else 0))
        sizes = (shape.num_layers, shape.num_kv_heads, shape.head_dim)
        convolved = (shape.conv_layers, shape.hidden_size, shape.conv_kernel)
        conv = ConvLayout(*convolved, self._float) if shape.conv_layers else None
        cache = CacheLayout(
            *sizes,
            self._cache_type,
            conv=conv,
            values_are_keys=shape.values_are_keys,
            shared=shape.shared,
            states=shape.states,
        )
        graphs, tokens = {"model": GraphFile(GRAPH, inputs, outputs)}, token_ids(self.checkpoint, shape.vocab_size)
        return self.described("text-generation", graphs, DecoderFacts(cache, rope), tokens)

    def describe(self, work: Path, manifest: Manifest[DecoderFacts]) -> None:
        checkpoint = self.checkpoint
        generation, known = generation_config(checkpoint), self.family.known_to_genai
        write_generation_config(work, checkpoint)
        if not self.shape.recurrent_layers:  # for whose cache it has no name
            write_json(work / "genai_config.json", genai_config(manifest, checkpoint.config, generation, known=known))

    def graphs(self, material: Material) -> Mapping[str, BuiltGraph]:
        return {GRAPH: build_decoder(self.family, material, attentions=self.choices.attentions)}

    def texts(self, work: Path, manifest: Manifest[Any]) -> Sequence[TokenArray]:
        return self._tokens(work, WEIGHTS_LENGTH, WEIGHTS_TOKENS)

    def measured(self, tokenizer: Tokenizer, manifest: Manifest[Any]) -> Sequence[TokenArray]:
        return evaluation_texts(tokenizer, manifest)[0]

    def verify(self, written: WrittenPackage[Any], progress: Progress) -> Report:
        return verify(written, self.original, progress)

    def cache(self, work: Path, manifest: Manifest[Any], progress: Progress) -> Sequence[CacheScales | None]:
        """Raises ExportError where there is no text to find them with."""
        if self.choices.kv_cache != "int8":
            return ()
        texts = self._tokens(work, CACHE_LENGTH, CACHE_TOKENS)
        if not texts:
            raise ExportError(
                "an int8 key/value cache needs scales from calibration text, and the checkpoint has no tokenizer that "
                f"makes {min(CACHE_LENGTH, manifest.context_length)} tokens of it; export with the tokenizer's files, "
                "or with --kv-cache float"
            )
        return cache_scales(self.original, texts, partial(progress, "calibrate cache"))

    def expected_cache(self) -> Sequence[CacheScales | None]:
        shape = self.shape
        ones = np.ones((shape.num_kv_heads, shape.head_dim), np.float32)
        return [CacheScales(ones, ones)] * shape.num_layers if self.choices.kv_cache == "int8" else ()

    @property
    def _cache_type(self) -> Literal["float32", "float16", "int8"]:
        return "int8" if self.choices.kv_cache == "int8" else self._float

    @property
    def _float(self) -> Literal["float32", "float16"]:
        return "float32" if self.choices.target == "cpu" else "float16"

    def _tokens(self, work: Path, length: int, count: int) -> Sequence[TokenArray]:
        """Calibration text in sequences of `length` or what the context holds."""
        length = min(length, self.shape.context_length)
        return tokenized(work, self.choices.text, self.shape.vocab_size, length, count)


def open_decoder(checkpoint: Checkpoint, choices: Choices) -> ForeseenExporter:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    _check_combination(choices)
    check_generation(checkpoint)
    family: DecoderFamily
    family, named = open_family(checkpoint)
    _check_states(family.shape, choices)
    if choices.target == "cuda" and family.shape.head_dim > CUDA_HEAD_DIM:
        raise ExportError(
            f"attention on CUDA takes heads of up to {CUDA_HEAD_DIM} channels, and this model's has "
            f"{family.shape.head_dim}; export for the CPU"
        )
    return Driver(DecoderRecipe(named, choices, family.names, family.shape, family))


def _check_states(shape: DecoderShape, choices: Choices) -> None:
    if shape.states is not None and choices.target == "cuda":
        raise ExportError("edgellm builds state spaces (Mamba) for the CPU only; leave out --target cuda")
    asked = [
        name
        for name, wanted in (("--attentions", choices.attentions), ("--kv-cache int8", choices.kv_cache == "int8"))
        if wanted
    ]
    if asked and not shape.num_attention_layers:
        raise ExportError(f"no layer of this model has attention; leave out {' and '.join(asked)}")


def _check_combination(choices: Choices) -> None:
    check_cuda(choices)
    if choices.attentions and (choices.target == "cuda" or choices.kv_cache == "int8"):
        raise ExportError(
            "attention weights come from the CPU's kernel with a float cache only; with --attentions, leave out "
            "--target cuda and --kv-cache int8"
        )
    if choices.target == "cuda" and choices.kv_cache == "int8":
        raise ExportError(
            "packages for CUDA have a float16 key/value cache only; leave out --kv-cache int8, or export for the CPU"
        )
