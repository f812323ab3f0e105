"""A checkpoint that writes down speech becomes two graphs, an encoder of spectrograms or samples and its decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, ExportError
from edgellm.package.layouts import CROSS_QUERIES
from edgellm.package.manifest import AudioFeatures, GraphFile, Manifest, SpeechFacts
from edgellm.package.report import Report
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress
from edgellm_export.architectures import open_family
from edgellm_export.architectures.moonshine import LONGEST, SHORTEST, Moonshine
from edgellm_export.architectures.whisper import Whisper
from edgellm_export.blocks.build import Material
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.exporters.contract import Choices, ForeseenExporter
from edgellm_export.exporters.driver import Driver
from edgellm_export.exporters.encoder_decoder import DECODER, ENCODER, EncoderDecoderRecipe, check_combination
from edgellm_export.float_run.encoder_decoder import Pair, SpeechRun
from edgellm_export.graphs.encoder_decoder import SourceInputs, build_decoder, build_encoder, feature_inputs
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.package.audio import audio_features, raw_audio
from edgellm_export.package.side_files import check_generation, generation_config, token_ids
from edgellm_export.verification.layers import WrittenPackage
from edgellm_export.verification.speech import verify_speech


@dataclass(frozen=True)
class SpeechRecipe(EncoderDecoderRecipe):
    family: Whisper | Moonshine
    audio: AudioFeatures
    aligned: tuple[int, ...]  # layers that tell when words are said

    @property
    def original(self) -> SpeechRun:
        return SpeechRun(self.family, TensorReader(self.checkpoint.tensors), inputs=self._inputs)

    @property
    def calibrates(self) -> bool:
        """Never: there is no speech to calibrate with."""
        return False

    def manifest(self) -> Manifest[SpeechFacts]:
        tokens = token_ids(self.checkpoint, self.shape.vocab_size)
        facts = SpeechFacts(**vars(self._facts()), audio=self.audio)
        return self.described("automatic-speech-recognition", self._graph_files(), facts, tokens)

    def graphs(self, material: Material) -> Mapping[str, BuiltGraph]:
        encoder = build_encoder(self.family, material, inputs=self._inputs)
        return {ENCODER: encoder, DECODER: build_decoder(self.family, material, queries=self.aligned)}

    def borrowers(self, material: Material) -> Mapping[str, BuiltGraph]:
        return {}

    def texts(self, work: Path, manifest: Manifest[Any]) -> Sequence[Pair]:
        return ()

    def measured(self, tokenizer: Tokenizer, manifest: Manifest[Any]) -> Sequence[Pair]:
        raise NotImplementedError  # only mixed precision asks, which needs texts

    def verify(self, written: WrittenPackage[Any], progress: Progress) -> Report:
        return verify_speech(written, self.original, progress)

    @property
    def _inputs(self) -> SourceInputs:
        frames = "samples" if self.audio.raw else self.audio.frames
        return partial(feature_inputs, mel_bins=self.audio.mel_bins, frames=frames)

    def _graph_files(self) -> Mapping[str, GraphFile]:
        files = super()._graph_files()
        decoder = files["decoder"]
        queries = tuple(f"{CROSS_QUERIES}{i}" for i in self.aligned)
        return {
            "encoder": GraphFile(ENCODER, ("input_features",), ()),
            "decoder": replace(decoder, outputs=(*decoder.outputs, *queries)),
        }


def aligned_layers(checkpoint: Checkpoint, family: Whisper | Moonshine) -> tuple[int, ...]:
    """Of the heads that generation_config.json names, in order. Raises CheckpointError."""
    pairs = generation_config(checkpoint).get("alignment_heads") or []
    sizes = family.shape.num_layers, family.shape.num_kv_heads
    if not isinstance(pairs, list) or not all(_is_head(pair, sizes) for pair in pairs):
        raise CheckpointError(
            f"generation_config.json: alignment_heads is {pairs!r}, expected pairs of one of {sizes[0]} layers and one "
            f"of its {sizes[1]} heads; correct it, or remove it and have no times of words"
        )
    return tuple(sorted({layer for layer, _ in pairs}))


def _is_head(pair: object, sizes: tuple[int, int]) -> bool:
    if not isinstance(pair, list) or [type(place) for place in pair] != [int, int]:
        return False
    return all(0 <= place < size for place, size in zip(pair, sizes, strict=True))


def open_speech(checkpoint: Checkpoint, choices: Choices) -> ForeseenExporter:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    check_combination(choices, "automatic-speech-recognition")
    if choices.budget is not None:
        raise ExportError(
            "mixed precision is chosen by calibration text, and models of speech read none; export as int8"
        )
    if choices.attentions:
        raise ExportError("models of speech do not give their attention weights; leave out --attentions")
    if choices.text.given:
        raise ExportError("models of speech read no calibration text; leave out --calibration")
    check_generation(checkpoint)
    family: Whisper | Moonshine
    family, named = open_family(checkpoint)
    if isinstance(family, Whisper):
        audio = audio_features(checkpoint.files, family.mel_bins, family.frames)
    else:
        audio = raw_audio(checkpoint.files, SHORTEST, LONGEST)
    return Driver(
        SpeechRecipe(named, choices, family.names, family.shape, family, audio, aligned_layers(named, family))
    )
