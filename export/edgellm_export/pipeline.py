"""An export from start to end: the steps in order. What differs by kind of model is in exporters/."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from edgellm.errors import ExportError, QualityGateError
from edgellm.package.manifest import EncoderFacts, KVCacheType, Manifest, Precision, Target, Task
from edgellm.package.report import ExportOutcome, MixturePoint, Report, write_report
from edgellm.system.bandwidth import read_bandwidth
from edgellm.system.cpu import usable_cores
from edgellm.system.memory import resident_bytes
from edgellm.types import Progress
from edgellm_export.adapters.checkpoint import GivenAdapter, merge_adapters, open_adapters, task_of_adapters, weighted
from edgellm_export.adapters.refusals import MERGE
from edgellm_export.architectures import Kind
from edgellm_export.architectures.whole import text_model
from edgellm_export.calibration.mixing import Budget
from edgellm_export.calibration.texts import calibration_text
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.exporters.contract import (
    Choices,
    Exporter,
    ForeseenExporter,
    GlobalAttention,
    check_global_attention,
)
from edgellm_export.exporters.decoder import open_decoder
from edgellm_export.exporters.encoder import open_encoder
from edgellm_export.exporters.encoder_decoder import open_encoder_decoder
from edgellm_export.exporters.outline import hollow
from edgellm_export.exporters.sentence import as_sentence_encoder, kind_for
from edgellm_export.exporters.speech import open_speech
from edgellm_export.optimum.export import open_optimum, open_source
from edgellm_export.package.output import check_target, new_directory
from edgellm_export.package.side_files import seal, write_side_files
from edgellm_export.planning.plan import Plan, measure_resources, plan_of, speeds
from edgellm_export.planning.prediction import Prediction, Watch, predict
from edgellm_export.sources.opening import open_checkpoint
from edgellm_export.verification.report import gate
from edgellm_export.witness.comparison import ask_transformers
from edgellm_export.witness.findings import Findings, gate_findings
from edgellm_export.witness.process import Reader

OPENERS: Mapping[Kind, Callable[[Checkpoint, Choices], ForeseenExporter]] = {
    "decoder": open_decoder,
    "encoder": open_encoder,
    "encoder-decoder": open_encoder_decoder,
    "speech": open_speech,
}


@dataclass(frozen=True)
class Exported:
    """Where the package is, what it says of itself, how close it is to the original (None: not verified), what was
    foreseen beside what happened (None: via optimum), and what transformers says of it (None: not asked)."""

    path: Path
    manifest: Manifest
    report: Report | None
    outcome: ExportOutcome | None = None
    findings: Findings | None = None


@dataclass(frozen=True)
class Opened:
    """What is to be exported. `checkpoint`: what `exporter` makes a package of. `foreseen`: the same exporter, unless
    its graphs are other tools'."""

    checkpoint: Checkpoint
    exporter: Exporter
    foreseen: ForeseenExporter | None

    def predict(self, *, verify: bool, directory: Path | None = None) -> Prediction | None:
        """See `prediction.predict`; None where nothing can be foreseen. Leaves nothing in `directory`."""
        if self.foreseen is None:
            return None
        base = resident_bytes() or 0
        return predict(self.foreseen, self.checkpoint, verify=verify, base=base, directory=directory)


def export(
    source: str | Path,
    out: str | Path,
    *,
    precision: Precision = "int8",
    target: Target = "cpu",
    kv_cache: KVCacheType = "float",
    task: Task | None = None,
    adapters: Sequence[GivenAdapter] = (),
    via: Literal["optimum"] | None = None,
    attentions: bool = False,
    global_attention: GlobalAttention = "none",
    revision: str | None = None,
    force: bool = False,
    keep_failed: bool = False,
    verify_quality: bool = True,
    verify_with: Literal["transformers"] | None = None,
    python: str | None = None,
    calibrate: bool = True,
    calibration: str | Path | None = None,
    max_divergence: float | None = None,
    max_size: int | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Export the checkpoint `source` (directory, hub id or .gguf file) to the package directory `out`.

    int8 and int4 weights are rounded by what calibration text shows of the layers' inputs: the text file
    `calibration`, or else built-in English; not without `calibrate`, and not where the checkpoint has no tokenizer.
    "mixed" gives each of the layers' matrices 8 or 4 bits, by what 4 cost, so that the package is the smallest whose
    KL divergence from the original (in nats per token; of an encoder, the relative error of its outputs) is at most
    `max_divergence`, or the closest of at most `max_size` bytes; it needs one of the two, and calibration.
    `task`: what the model is for, where its config does not say, or another of the tasks that its weights allow.
    `adapters`: LoRA adapters to merge into the weights, each the directory or hub id of one, or that and a weight
    for it; a tokenizer that lies with one takes the place of the checkpoint's. `via` "optimum": the
    graphs of another exporter, for families that edgellm does not build; needs torch. `attentions`: the package can
    give its attention weights, and is slower for it. `global_attention` "first": of LED, the first token of each source
    sees all others and is seen by them, as with a 1 there in transformers' global_attention_mask, which checkpoints for
    summaries are trained with; "none" is what transformers does without that mask. `kv_cache`: "float" is the type of
    the graph's activations; "int8", a quarter of float32's bytes, always takes scales from that text, and so needs a
    tokenizer. The result is compared with the float model on other built-in text; further away than its precision
    allows, it raises QualityGateError and nothing is kept, unless `keep_failed` (then it stays as `out`.failed). A CUDA
    package is compared on the CPU where there is no CUDA: slower, the same numbers. `verify_with` "transformers": it is
    compared with what transformers makes of the checkpoint, too, see `verify`; what differs is a QualityGateError.
    `progress` is called with (step name, done, total). Until the last step succeeds, `out` is as it was. Raises
    CheckpointError or ExportError.
    """
    out, failed = Path(out), Path(f"{out}.failed") if keep_failed else None
    check_target(out, force=force)
    if failed is not None:
        check_target(failed, force=True)
    budget = _budget(precision, max_divergence, max_size, calibrate=calibrate, via=via)
    choices = _choices(precision, target, kv_cache, task, attentions, calibrate, calibration, budget, global_attention)
    if verify_with is not None:
        Reader(python).check(str(source), adapters=bool(adapters))
    opened = open_export(source, choices, via, revision, adapters)

    def keep(error: BaseException) -> Path | None:
        return failed if isinstance(error, QualityGateError) else None

    quiet = np.errstate(all="ignore")  # values that are not numbers end in the gate's error; numpy would add warnings
    with quiet, _memory_errors(), new_directory(out, force=force, keep=keep) as work:
        watch = Watch.start(opened.predict(verify=verify_quality, directory=work))
        write_side_files(work, opened.checkpoint)
        written = opened.exporter.write(work, progress or (lambda step, done, total: None))
        manifest = seal(work, written.manifest)
        report = written.verify(manifest) if verify_quality else None
        outcome = None if watch is None else watch.stop(work)
        if report is not None:
            report = replace(report, plan=outcome, mixture=_with_speeds(report.mixture, watch))
            manifest = _judged(work, manifest, report, failed)
        findings = None
        if verify_with is not None:
            findings = verify(work, source, adapters=adapters, revision=revision, python=python)
            gate_findings(findings, failed)
    return Exported(out, manifest, report, outcome, findings)


def _judged(work: Path, manifest: Manifest, report: Report, failed: Path | None) -> Manifest:
    """Puts the report into the package, and raises QualityGateError where it says that this is too far from the
    original."""
    write_report(work, report)
    sealed = seal(work, manifest)
    gate(report, failed)
    return sealed


def _with_speeds(mixture: Sequence[MixturePoint], watch: Watch) -> tuple[MixturePoint, ...]:
    """What was tried of mixtures, with the speed that each would have here."""
    if not mixture or watch.prediction is None or isinstance(watch.prediction.manifest.model, EncoderFacts):
        return tuple(mixture)
    return speeds(mixture, watch.prediction, read_bandwidth(usable_cores()))


def verify(
    package: str | Path, source: str | Path, *, adapters: Sequence[GivenAdapter] = (), revision: str | None = None,
    python: str | None = None,
) -> Findings:  # fmt: skip
    """Compare a package with what transformers, and PEFT with the `adapters`, make of its checkpoint `source`: the
    tokens of some hundred texts, decoded text, rendered chats, logits or an encoder's numbers, defaults of generation,
    and what is generated by them.

    transformers (4.57 or newer) reads the checkpoint in a process of `python`, an interpreter that has it and torch;
    None is the one that runs this. Raises MissingDependencyError where it has not, and what loading a package raises.
    """
    pairs = weighted(adapters)
    return ask_transformers(Path(package), str(source), python=python, revision=revision, adapters=pairs)


def plan(
    source: str | Path,
    out: str | Path,
    *,
    precision: Precision = "int8",
    target: Target = "cpu",
    kv_cache: KVCacheType = "float",
    task: Task | None = None,
    adapters: Sequence[GivenAdapter] = (),
    via: Literal["optimum"] | None = None,
    attentions: bool = False,
    global_attention: GlobalAttention = "none",
    revision: str | None = None,
    force: bool = False,
    verify_quality: bool = True,
    calibrate: bool = True,
    calibration: str | Path | None = None,
    max_divergence: float | None = None,
    max_size: int | None = None,
) -> Plan:
    """What `export` with the same arguments would write, how long it would take, the memory for it, and how fast the
    package would be on this machine. Reads the checkpoint's config and headers, none of its weights, and
    downloads none. Takes a few seconds, and makes nothing. Raises CheckpointError or ExportError."""
    check_target(Path(out), force=force)
    budget = _budget(precision, max_divergence, max_size, calibrate=calibrate, via=via)
    choices = _choices(precision, target, kv_cache, task, attentions, calibrate, calibration, budget, global_attention)
    prediction = open_export(source, choices, via, revision, adapters, weights=False).predict(verify=verify_quality)
    if prediction is None:
        raise ExportError(
            f"there is no plan of an export via {via}, whose graphs are known when it has made them; leave out --plan"
        )
    return plan_of(prediction, measure_resources(Path(out)), budget)


def open_export(
    source: str | Path,
    choices: Choices,
    via: Literal["optimum"] | None,
    revision: str | None,
    adapters: Sequence[GivenAdapter],
    *,
    weights: bool = True,
) -> Opened:
    """Without `weights` they are zeros, and not read. Raises CheckpointError or ExportError."""
    if via is not None:
        if adapters:
            raise ExportError(
                "adapters are merged into the weights of families that edgellm builds itself; for --via optimum, merge "
                f"them with PEFT first: {MERGE}"
            )
        check_global_attention(choices)
        if choices.attentions:
            raise ExportError(
                "attention weights are to be had of graphs that edgellm builds itself; leave out --attentions"
            )
        checkpoint = as_sentence_encoder(open_source(str(source), revision), choices.task)
        return Opened(checkpoint, open_optimum(checkpoint, choices), None)
    checkpoint = text_model(open_checkpoint(str(source), revision=revision, weights=weights))
    with _memory_errors():
        opened = open_adapters(adapters, weights=weights)
        checkpoint = merge_adapters(checkpoint if weights else hollow(checkpoint), opened)
        choices = replace(choices, task=choices.task or task_of_adapters(opened, checkpoint.files))
        checkpoint = as_sentence_encoder(checkpoint if weights else hollow(checkpoint), choices.task)
        kind = kind_for(checkpoint, choices.task)
        if kind != "encoder-decoder":
            check_global_attention(choices)
        exporter = OPENERS[kind](checkpoint, choices)
    return Opened(checkpoint, exporter, exporter)


def _choices(
    precision: Precision, target: Target, kv_cache: KVCacheType, task: Task | None, attentions: bool, calibrate: bool,
    file: str | Path | None, budget: Budget | None, global_attention: GlobalAttention,
) -> Choices:  # fmt: skip
    """`file`: of calibration text, None for the built-in one."""
    if file is not None and not calibrate:
        raise ExportError("calibration text was given and calibration switched off; leave out one of the two")
    text = calibration_text(None if file is None else Path(file))
    if global_attention not in get_args(GlobalAttention):
        raise ExportError(f"global_attention is {global_attention!r}, expected 'none' or 'first'")
    return Choices(precision, target, kv_cache, task, calibrate, text, attentions, budget, global_attention)


def _budget(
    precision: Precision, max_divergence: float | None, max_size: int | None, *, calibrate: bool, via: str | None
) -> Budget | None:
    """Raises ExportError where a budget is missing, or is one for nothing."""
    given = [each for each in (max_divergence, max_size) if each is not None]
    if precision != "mixed":
        if given:
            raise ExportError(
                f"a largest divergence or size is what mixed precision is chosen by; export with --precision mixed, or "
                f"leave it out for {precision}"
            )
        return None
    if len(given) != 1:
        raise ExportError(
            "mixed precision needs either the divergence or the size that a package may have; give one of "
            "--max-divergence 0.01 and --max-size 400MB"
        )
    if not (math.isfinite(given[0]) and given[0] > 0):
        raise ExportError(f"a largest divergence or size is a number above zero; found {given[0]}")
    if not calibrate or via is not None:
        raise ExportError(
            "mixed precision is chosen by calibration text, for graphs that edgellm builds itself; leave out "
            + ("--no-calibration" if via is None else f"--via {via}")
        )
    return Budget(max_divergence, max_size)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ExportError(
            f"the export needs more memory than there is ({error or 'no size given'}); "
            "check the sizes in the model's config, or export on a larger machine"
        ) from error
