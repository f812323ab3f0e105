"""An encoder-only checkpoint becomes one graph: texts in, the numbers of its head out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.errors import ExportError
from edgellm.package.manifest import Embedding, EncoderFacts, GraphFile, Manifest, TokenIds, Weights
from edgellm.package.sentence import embedding_of
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress
from edgellm_export.architectures import open_family
from edgellm_export.architectures.contract import EncoderFamily
from edgellm_export.architectures.names import canonical
from edgellm_export.blocks.build import attention_names
from edgellm_export.calibration.encoder import calibrate_layers
from edgellm_export.calibration.encoder_texts import check_given, paragraphs
from edgellm_export.calibration.rounding import NOT_CALIBRATED, Calibration
from edgellm_export.checkpoint import Checkpoint, TensorReader
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.exporters.contract import Choices, Outline, Written
from edgellm_export.exporters.encoder_head import labels_of, problem_of, task_of
from edgellm_export.exporters.outline import expected_scheme
from edgellm_export.float_run.encoder import EncoderLayers, EncoderRun
from edgellm_export.float_run.segments import DataFile
from edgellm_export.graphs.encoder import EncoderModel, build_encoder, head_patterns
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.onnx.writer import outline_graph, write_graph
from edgellm_export.package.output import disk_errors
from edgellm_export.package.side_files import GRAPH, versions
from edgellm_export.quantize import WeightScheme, scheme_for
from edgellm_export.verification.encoder import verify_encoder

CALIBRATION_LENGTH, CALIBRATION_TOKENS = 128, 2048


@dataclass(frozen=True)
class EncoderExport:
    """Implements `steps.Exporter`."""

    checkpoint: Checkpoint
    model: EncoderModel
    facts: EncoderFacts

    def write(self, work: Path, choices: Choices, progress: Progress) -> Written:
        model, precision = self.model, choices.precision
        manifest = self._manifest(choices)
        original = EncoderRun(model, TensorReader(self.checkpoint.tensors))
        tensors = _account(self.checkpoint, model)
        with tempfile.TemporaryDirectory(dir=work) as matrices:
            calibrated = NOT_CALIBRATED
            if choices.calibrate:
                calibrated = _calibrate(work, Path(matrices), original, choices, progress)
            scheme = scheme_for(precision, choices.target).calibrated(calibrated.prepared)
            built = build_encoder(model, tensors, scheme, calibrated.moves, attentions=choices.attentions)
            offsets = write_graph(built, work / GRAPH, progress=lambda *done: progress("weights", *done))
        layers = EncoderLayers(model, tensors, scheme, calibrated.moves, DataFile(work / f"{GRAPH}.data", offsets))
        return Written(
            replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)),
            lambda sealed: verify_encoder(work, sealed, original, layers, calibrated, progress),
        )

    def outline(self, work: Path, choices: Choices) -> Outline:
        manifest, tensors = self._manifest(choices), _account(self.checkpoint, self.model)

        def build(scheme: WeightScheme) -> BuiltGraph:
            return build_encoder(self.model, tensors, scheme, attentions=choices.attentions)

        scheme = expected_scheme(choices, self.checkpoint, build(scheme_for("fp32", "cpu")).projections)
        built = build(scheme)
        outline_graph(built, work / GRAPH)
        return Outline(replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)), built.projections)

    def _manifest(self, choices: Choices) -> Manifest:
        """Still without its files' hashes."""
        config, model = self.model.family.config, self.model
        scheme = scheme_for(choices.precision, choices.target)
        tied = config.tied_embedding and model.task == "fill-mask"
        watched = config.num_layers if choices.attentions else 0
        return Manifest(
            task=model.task,
            model_type=str(self.checkpoint.config["model_type"]),
            target=choices.target,
            graphs={"model": GraphFile(GRAPH, model.inputs, (*model.outputs, *attention_names(watched)))},
            model=self.facts,
            weights=Weights(choices.precision, scheme.name, tied),
            vocab_size=config.vocab_size,
            context_length=config.context_length,
            tokens=_token_ids(self.checkpoint.config, config.vocab_size),
            source=dict(self.checkpoint.source),
            versions=versions(),
        )


def open_encoder(checkpoint: Checkpoint, choices: Choices) -> EncoderExport:
    """Raises UnsupportedModelError, CheckpointError, or ExportError for a combination that cannot be."""
    _check_combination(choices)
    found: EncoderFamily = open_family(checkpoint.config)
    checkpoint = canonical(checkpoint, found.names)
    task = task_of(checkpoint.config, choices.task)
    labels = labels_of(checkpoint.config, task, _classifier_rows(checkpoint.tensors, found.classifiers))
    embedding = _embedding(checkpoint, found, choices) if task == "feature-extraction" else None
    model = EncoderModel(found, task, len(labels), None if embedding is None else embedding.pooling)
    return EncoderExport(checkpoint, model, EncoderFacts(labels, problem_of(checkpoint.config, task), embedding))


def _calibrate(work: Path, matrices: Path, original: EncoderRun, choices: Choices, progress: Progress) -> Calibration:
    """Nothing where there is nothing to round, or no tokenizer."""
    candidates = scheme_for(choices.precision, choices.target).candidates
    file = work / "tokenizer.json"
    if not candidates or not file.is_file():
        return NOT_CALIBRATED
    config, text = original.model.family.config, choices.text
    length = min(CALIBRATION_LENGTH, config.context_length)
    sequences = paragraphs(text.texts, Tokenizer.from_file(file), config.vocab_size, length, CALIBRATION_TOKENS)
    check_given(sequences, text.origin, given=text.given)
    if not sequences:
        return NOT_CALIBRATED
    with disk_errors(work):
        return calibrate_layers(
            original, sequences, text.origin, candidates, matrices, lambda *done: progress("calibrate", *done)
        )


def _account(checkpoint: Checkpoint, model: EncoderModel) -> TensorReader:
    """The checkpoint's tensors, after a dry run that finds all that are missing, misshapen or left over."""
    ignored = model.family.names.ignored(tied=model.family.config.tied_embedding)
    tensors = TensorReader(checkpoint.tensors, ignore=(*ignored, *head_patterns(model)))
    build_encoder(model, tensors, scheme_for("fp32", "cpu"))
    tensors.finish()
    return tensors


def _embedding(checkpoint: Checkpoint, found: EncoderFamily, choices: Choices) -> Embedding | None:
    """Not where the states of all tokens were asked for."""
    if choices.task == "feature-extraction":
        return None
    return embedding_of(checkpoint.files, found.config.context_length, found.config.hidden_size)


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
