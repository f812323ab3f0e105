"""Logits, vectors, labels and defaults of a package beside those of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.decoding.options import GenerationOptions
from edgellm.errors import EdgellmError, MissingDependencyError
from edgellm.loading import AnyModel
from edgellm.models.decoder import Model
from edgellm.models.encoder import EncoderModel, TextOrIds
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.package.generation import OWN
from edgellm.package.manifest import Precision, TokenIds
from edgellm.types import FloatArray
from edgellm_export.float_run.divergence import Comparison
from edgellm_export.verification.report import ENCODER_THRESHOLDS, thresholds
from edgellm_export.witness.findings import Check
from edgellm_export.witness.questions import PAIRS, Question

# Relative to the size of the numbers. Deep models round to some 1e-6; a misread epsilon or scale costs more than this.
FLOAT_LIMITS: Mapping[Precision, float] = {"fp32": 1e-4}
NEW_TOKENS = 12  # as in reading.py
Generative = Model | EncoderDecoderModel


def model_checks(model: AnyModel, found: Mapping[str, Any], question: Question) -> Iterator[Check]:
    """`found`: what reading.py says of the model; its arrays lie where the question says. Raises
    MissingDependencyError."""
    if "error" in found:
        if question.embed and "ModuleNotFoundError" in found["error"]:
            raise MissingDependencyError(
                f"comparing a sentence encoder needs sentence-transformers beside transformers ({found['error']}); "
                "run `pip install sentence-transformers`"
            )
        yield Check("model", 1, "checkpoint", (f"transformers cannot read it: {found['error']}",))
    elif isinstance(model, EncoderModel):
        yield from _encoder_checks(model, found, question)
    elif isinstance(model, Generative):
        yield _logits(model, found, Path(question.out))
        yield _defaults(model, found["generation"])
        yield _special_ids(model, found["generation"])
        if model.manifest.weights.precision == "fp32":
            yield _generated(model, found)


def _logits(model: Generative, found: Mapping[str, Any], out: Path) -> Check:
    rows = found["rows"]
    theirs = [np.load(out / f"logits-{i}.npy") for i in range(len(rows))]
    tokens, width = sum(map(len, theirs)), model.manifest.vocab_size
    if theirs[0].shape[-1] != width:
        return Check("logits", tokens, "tokens", (f"of {width} tokens here and of {theirs[0].shape[-1]} there",))
    if isinstance(model, Model):
        ours = [model.logits(row) for row in rows]
    else:
        ours = [model.logits(row, np.load(out / f"target-{i}.npy")) for i, row in enumerate(rows)]
    error = relative_error(ours, theirs)
    limit = FLOAT_LIMITS.get(model.manifest.weights.precision)
    wrong = _divergence(model, ours, theirs) if limit is None else _beyond(error, limit)
    return Check("logits", tokens, "tokens", wrong, error)


def _divergence(model: Generative, ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> tuple[str, ...]:
    allowed = thresholds(model.manifest.weights.precision, model.manifest.model.cache.dtype)
    comparison = Comparison(np.full(sum(map(len, ours)), -1))
    comparison.add(0, np.concatenate(theirs), np.concatenate(ours))
    divergence, agreement = float(comparison.kl_divergence().mean()), float(comparison.agreement().mean())
    if divergence <= allowed.kl_divergence and agreement >= allowed.top1_agreement:
        return ()
    return (
        f"KL divergence {divergence:.3g} (at most {allowed.kl_divergence:g}), top-1 agreement {agreement:.0%} "
        f"(at least {allowed.top1_agreement:.0%})",
    )


def relative_error(ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> float:
    """The size of the difference relative to theirs, of the array where it is largest or not a number."""
    pairs = zip(ours, theirs, strict=True)
    errors = [float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30) for a, b in pairs]
    return float(np.max(errors))  # is not a number where one of them is not


def _beyond(error: float, limit: float) -> tuple[str, ...]:
    return () if error <= limit else (f"more than {limit:.0e} apart",)  # also where it is not a number


def _defaults(model: Generative, generation: Mapping[str, Any]) -> Check:
    """How it generates where the caller says nothing."""
    ours = asdict(GenerationOptions.create(model.generation_defaults))
    try:
        said = {name: value for name, value in generation.items() if name not in OWN}
        theirs = asdict(GenerationOptions.create(said))
    except EdgellmError as error:
        return Check("defaults", len(ours), "options", (f"those of transformers are refused here: {error}",))
    different = [f"{name} is {ours[name]} here and {theirs[name]} there" for name in ours if ours[name] != theirs[name]]
    return Check("defaults", len(ours), "options", tuple(different))


def _special_ids(model: Generative, generation: Mapping[str, Any]) -> Check:
    ours = asdict(model.manifest.tokens)
    theirs = asdict(TokenIds.of(generation, model.manifest.vocab_size))
    if ours["decoder_start"] is not None and theirs["decoder_start"] is None:
        theirs["decoder_start"] = theirs["bos"]  # as transformers' generate takes it
    different = [f"{name} is {ours[name]} here and {theirs[name]} there" for name in ours if ours[name] != theirs[name]]
    return Check("special tokens", len(ours), "ids", tuple(different))


def _generated(model: Generative, found: Mapping[str, Any]) -> Check:
    """What both generate by the defaults, nothing drawn by chance."""
    different = []
    ends = set(model.manifest.tokens.eos)
    for prompt, theirs in zip(found["prompts"], found["generated"], strict=True):
        if isinstance(theirs, dict):
            different.append(f"transformers cannot generate: {theirs['error']}")
            continue
        ours = list(model.generate(prompt, do_sample=False, max_new_tokens=NEW_TOKENS).tokens)
        if _ended(ours, ends) != _ended(theirs, ends):
            different.append(f"{ours} here and {theirs} there")
    return Check("generated", len(found["prompts"]), "texts", tuple(different))


def _ended(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens before the first end; those behind it are padding."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


def _encoder_checks(model: EncoderModel, found: Mapping[str, Any], question: Question) -> Iterator[Check]:
    if model.labels:
        mine = list(model.labels.values())
        wrong = () if mine == found["labels"] else (f"{mine} here and {found['labels']} there",)
        yield Check("labels", len(mine), "labels", wrong)
    precision = model.manifest.weights.precision
    limit = FLOAT_LIMITS.get(precision, ENCODER_THRESHOLDS[precision].error)
    results = _outputs(model, found, question)
    for name in found["outputs"]:
        ours = [result[name] for result in results]
        theirs = [np.load(Path(question.out) / f"{name}-{i}.npy") for i in range(len(results))]
        shapes = [
            f"{a.shape} here and {b.shape} there" for a, b in zip(ours, theirs, strict=True) if a.shape != b.shape
        ]
        error = None if shapes else relative_error(ours, theirs)
        yield Check(name, len(ours), "inputs", tuple(shapes) or _beyond(error or 0.0, limit), error)


def _outputs(model: EncoderModel, found: Mapping[str, Any], question: Question) -> list[Mapping[str, FloatArray]]:
    texts = question.long_texts
    if question.embed:
        return [{"sentence_embedding": vector} for vector in model.embed(texts, truncation="longest_first")]
    if model.tokenizer is None or not found["tokenized"]:
        return [result.outputs for result in model.run(found["inputs"])]
    inputs: list[TextOrIds] = [*texts, *PAIRS]
    return [result.outputs for result in model.run(inputs, truncation="longest_first", max_length=question.length)]
