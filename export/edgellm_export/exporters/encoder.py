"""An encoder-only checkpoint becomes one graph: texts in, the numbers of its head out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.errors import ExportError, UnsupportedModelError
from edgellm.package.manifest import EncoderFacts, GraphFile, Manifest, TokenIds
from edgellm.package.report import Report
from edgellm.package.sentence import SentenceEncoder, check_widths, sentence_encoder
from edgellm.package.sentence_steps import TOKEN_HEADS
from edgellm.text.encodings import Encoding
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress
from edgellm_export.architectures import kind_of, open_family
from edgellm_export.architectures.contract import EncoderFamily
from edgellm_export.architectures.states import DecoderStates
from edgellm_export.blocks.build import Material, attention_names
from edgellm_export.calibration.encoder_texts import check_given, paragraphs
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.exporters.contract import Choices, ForeseenExporter
from edgellm_export.exporters.driver import Driver
from edgellm_export.exporters.encoder_head import labels_of, problem_of, task_of
from edgellm_export.exporters.recipe import Recipe
from edgellm_export.float_run.encoder import EncoderRun
from edgellm_export.graphs.encoder import HeadedEncoder, build_encoder, head_patterns
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.package.side_files import GRAPH
from edgellm_export.verification.encoder import evaluation_texts, verify_encoder
from edgellm_export.verification.layers import WrittenPackage

CALIBRATION_LENGTH, CALIBRATION_TOKENS = 128, 2048


@dataclass(frozen=True)
class EncoderRecipe(Recipe[Encoding]):
    model: HeadedEncoder
    facts: EncoderFacts

    @property
    def ignored(self) -> Sequence[str]:
        return (*super().ignored, *head_patterns(self.model))

    @property
    def original(self) -> EncoderRun:
        return EncoderRun(self.model, TensorReader(self.checkpoint.tensors))

    def manifest(self) -> Manifest[EncoderFacts]:
        model, watched = self.model, self.shape.num_layers if self.choices.attentions else 0
        graph = GraphFile(GRAPH, model.inputs, (*model.outputs, *attention_names(watched)))
        tokens = _token_ids(self.checkpoint.config, self.shape.vocab_size)
        return self.described(model.task, {"model": graph}, self.facts, tokens)

    def graphs(self, material: Material) -> Mapping[str, BuiltGraph]:
        return {GRAPH: build_encoder(self.model, material, attentions=self.choices.attentions)}

    def texts(self, work: Path, manifest: Manifest[Any]) -> Sequence[Encoding]:
        file, text = work / "tokenizer.json", self.choices.text
        if not file.is_file():
            return ()
        length, vocab_size = min(CALIBRATION_LENGTH, manifest.context_length), manifest.vocab_size
        found = paragraphs(text.texts, Tokenizer.from_file(file), vocab_size, length, CALIBRATION_TOKENS)
        check_given(found, text.origin, given=text.given)
        return found

    def measured(self, tokenizer: Tokenizer, manifest: Manifest[Any]) -> Sequence[Encoding]:
        return evaluation_texts(tokenizer, manifest)[0]

    def verify(self, written: WrittenPackage[Any], progress: Progress) -> Report:
        return verify_encoder(written, self.original, progress)


def open_encoder(checkpoint: Checkpoint, choices: Choices) -> ForeseenExporter:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    _check_combination(choices)
    found: EncoderFamily
    found, checkpoint = _opened(checkpoint)
    if found.config.shared and choices.precision == "mixed":
        raise ExportError("the model's layers share their matrices, which then have one format; export as int8 or int4")
    sentences = _sentence_encoder(checkpoint, found, choices)
    if sentences is not None:
        checkpoint = replace(checkpoint, tensors={**checkpoint.tensors, **checkpoint.steps})
        heads = _token_heads(checkpoint.steps)
        model = HeadedEncoder(found, "feature-extraction", 0, sentences.embedding.poolings, sentences.dense, heads)
        facts = EncoderFacts(embedding=sentences.embedding)
    else:
        task = task_of(checkpoint.config, choices.task)
        labels = labels_of(checkpoint.config, task, _classifier_rows(checkpoint.tensors, found.classifiers))
        model, facts = (
            HeadedEncoder(found, task, len(labels)),
            EncoderFacts(labels, problem_of(checkpoint.config, task)),
        )
    return Driver(EncoderRecipe(checkpoint, choices, found.names, model.shape, model, facts))


def _opened(checkpoint: Checkpoint) -> tuple[EncoderFamily, Checkpoint]:
    """Of a decoder, its states; some are trained to see both ways, which nothing that generates does."""
    config = checkpoint.config
    if kind_of(config) == "encoder":
        return open_family(checkpoint)
    both_ways = config.get("use_bidirectional_attention") is True
    if both_ways:
        checkpoint = replace(checkpoint, config={**config, "use_bidirectional_attention": False})
    decoder, checkpoint = open_family(checkpoint)
    if decoder.shape.states is not None:
        raise UnsupportedModelError(
            f"{config['model_type']} has state spaces (Mamba), of which edgellm builds models that generate, and no "
            "embeddings; export it with --task text-generation"
        )
    return DecoderStates(decoder, both_ways), checkpoint


def _sentence_encoder(checkpoint: Checkpoint, found: EncoderFamily, choices: Choices) -> SentenceEncoder | None:
    """What makes one vector of a text, where the checkpoint says so and nothing else was asked for."""
    if choices.task is not None:
        return None
    sentences = sentence_encoder(checkpoint.files, found.config.context_length, found.config.hidden_size)
    if sentences is not None:
        check_widths(sentences.dense, found.config.hidden_size * len(sentences.embedding.poolings))
    return sentences


def _token_heads(steps: Mapping[str, LazyTensor]) -> dict[str, int]:
    """What the checkpoint gives for each token, and how many numbers."""
    matrices = {name: steps.get(f"{layer}.weight") for name, layer in TOKEN_HEADS.items()}
    widths = {name: matrix.shape[0] for name, matrix in matrices.items() if matrix is not None and matrix.shape}
    return widths | ({"sparse_weights": 1} if "sparse_weights" in widths else {})  # another size is found out then


def _classifier_rows(tensors: Mapping[str, LazyTensor], layers: Sequence[str]) -> int | None:
    names = [f"{layer}.weight" for layer in layers]
    return next((tensors[name].shape[0] for name in names if name in tensors), None)


def _token_ids(config: Mapping[str, Any], vocab_size: int) -> TokenIds:
    pad = config.get("pad_token_id")
    return TokenIds(pad=pad if type(pad) is int and 0 <= pad < vocab_size else None)


def _check_combination(choices: Choices) -> None:
    if choices.target == "cuda":
        raise ExportError("encoder-only packages run on the CPU only so far; export with --target cpu")
    if choices.kv_cache != "float":
        raise ExportError("an encoder has no key/value cache; leave out --kv-cache int8")
