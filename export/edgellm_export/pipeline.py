"""An export from start to end: the steps in order."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.errors import ExportError, QualityGateError, TensorError
from edgellm.manifest import KVCacheType, Manifest, Precision, Target
from edgellm.tokenizer import Tokenizer
from edgellm_export.architectures import Architecture, open_architecture
from edgellm_export.build import CacheScales
from edgellm_export.calibrate import NOT_CALIBRATED, Calibration, calibrate_layers
from edgellm_export.checkpoint import IGNORED, Checkpoint, TensorReader, open_checkpoint
from edgellm_export.decoder_graph import build_decoder
from edgellm_export.evaluation_text import CalibrationText, calibration_text
from edgellm_export.float_run import FloatRun, PackageLayers
from edgellm_export.kv_calibration import cache_scales
from edgellm_export.names import canonical
from edgellm_export.output import check_target, disk_errors, new_directory
from edgellm_export.package import GRAPH, make_manifest, seal, write_side_files
from edgellm_export.quantize import scheme_for
from edgellm_export.report import Report
from edgellm_export.segments import DataFile
from edgellm_export.verify import verify
from edgellm_export.writer import write_graph

Progress = Callable[[str, int, int], None]
Tokens = npt.NDArray[np.int64]

# Of calibration text, in tokens: each sequence and all of them.
WEIGHTS_LENGTH, WEIGHTS_TOKENS = 128, 2048
CACHE_LENGTH, CACHE_TOKENS = 256, 4096


@dataclass(frozen=True)
class Exported:
    """Where the package is, what it says of itself, and how close it is to the original (None: not verified)."""

    path: Path
    manifest: Manifest
    report: Report | None


def export(
    source: str | Path,
    out: str | Path,
    *,
    precision: Precision = "int8",
    target: Target = "cpu",
    kv_cache: KVCacheType = "float",
    revision: str | None = None,
    force: bool = False,
    keep_failed: bool = False,
    verify_quality: bool = True,
    calibrate: bool = True,
    calibration: str | Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Export the checkpoint `source` (directory, hub id or .gguf file) to the package directory `out`.

    int8 and int4 weights are rounded, and int8's formats chosen layer by layer, by what calibration text shows of the
    layers' inputs: the text file `calibration`, or else built-in English; not without `calibrate`, and not where the
    checkpoint has no tokenizer. `kv_cache`: "float" is the type of the graph's activations; "int8", a quarter of
    float32's bytes, always takes scales from that text, and so needs a tokenizer. The result is compared with the float
    model on other built-in text; further away than its precision allows, it raises QualityGateError and nothing is
    kept, unless `keep_failed` (then it stays as `out`.failed). A CUDA package is compared on the CPU where there is no
    CUDA: slower, the same numbers. `progress` is called with (step name, done, total). Until the last step succeeds,
    `out` is as it was. Raises CheckpointError or ExportError.
    """
    out, failed = Path(out), Path(f"{out}.failed") if keep_failed else None
    _check_combination(precision, target, kv_cache)
    check_target(out, force=force)
    if failed is not None:
        check_target(failed, force=True)
    if calibration is not None and not calibrate:
        raise ExportError("calibration text was given and calibration switched off; leave out one of the two")
    text = calibration_text(None if calibration is None else Path(calibration))
    checkpoint = canonical(open_checkpoint(str(source), revision=revision))
    _check_layers(checkpoint)
    with _memory_errors():
        architecture = open_architecture(checkpoint.config)
    report_progress = progress or (lambda step, done, total: None)

    def keep(error: BaseException) -> Path | None:
        return failed if isinstance(error, QualityGateError) else None

    with _memory_errors(), new_directory(out, force=force, keep=keep) as work:
        manifest = make_manifest(checkpoint, architecture, scheme_for(precision, target), precision, target, kv_cache)
        write_side_files(work, checkpoint, manifest)
        original = FloatRun(architecture, TensorReader(checkpoint.tensors))
        tensors = _account(checkpoint, architecture)
        cache = _calibrate_cache(work, original, manifest, text, report_progress) if kv_cache == "int8" else []
        with tempfile.TemporaryDirectory(dir=work) as matrices:
            calibrated = NOT_CALIBRATED
            if calibrate:
                calibrated = _calibrate(work, Path(matrices), original, manifest, text, report_progress)
            scheme = scheme_for(precision, target).calibrated(calibrated.prepared)
            built = build_decoder(architecture, tensors, scheme, calibrated.scales, cache)
            offsets = write_graph(built, work / GRAPH, progress=lambda *done: report_progress("weights", *done))
        data = DataFile(work / f"{GRAPH}.data", offsets)
        layers = PackageLayers(architecture, tensors, scheme, calibrated.scales, cache, data)
        manifest = seal(work, replace(manifest, weights=replace(manifest.weights, scheme=scheme.name)))
        report = verify(work, manifest, original, layers, calibrated, report_progress) if verify_quality else None
        if report is not None:
            report.write(work)
            manifest = seal(work, manifest)
            report.gate(failed)
    return Exported(out, manifest, report)


def _account(checkpoint: Checkpoint, architecture: Architecture) -> TensorReader:
    """The checkpoint's tensors, after a dry run that finds all that are missing, misshapen or left over."""
    tied_head = ("lm_head.weight",) if architecture.shape.tied_embedding else ()
    tensors = TensorReader(checkpoint.tensors, ignore=(*IGNORED, *tied_head))
    build_decoder(architecture, tensors, scheme_for("fp32", "cpu"))
    tensors.finish()
    return tensors


def _calibrate(
    work: Path, matrices: Path, original: FloatRun, manifest: Manifest, text: CalibrationText, progress: Progress
) -> Calibration:
    """Channel scales and rounded matrices, the latter as files in `matrices`. None where there is nothing to round, or
    no tokenizer."""
    candidates = scheme_for(manifest.weights.precision, manifest.target).candidates
    sequences = _tokens(work, manifest, text, WEIGHTS_LENGTH, WEIGHTS_TOKENS) if candidates else []
    if not sequences:
        return NOT_CALIBRATED
    with disk_errors(work):
        return calibrate_layers(
            original,
            sequences,
            text.origin,
            candidates,
            matrices,
            lambda done, total: progress("calibrate", done, total),
        )


def _calibrate_cache(
    work: Path, original: FloatRun, manifest: Manifest, text: CalibrationText, progress: Progress
) -> Sequence[CacheScales]:
    """Scales for an int8 key/value cache. Raises ExportError where there is no text to find them with."""
    sequences = _tokens(work, manifest, text, CACHE_LENGTH, CACHE_TOKENS)
    if not sequences:
        raise ExportError(
            "an int8 key/value cache needs scales from calibration text, and the checkpoint has no tokenizer that "
            f"makes {min(CACHE_LENGTH, manifest.context_length)} tokens of it; export with the tokenizer's files, or "
            "with --kv-cache float"
        )
    return cache_scales(original, sequences, lambda done, total: progress("calibrate cache", done, total))


def _tokens(work: Path, manifest: Manifest, text: CalibrationText, length: int, count: int) -> list[Tokens]:
    """`text` through the package's tokenizer, in sequences of `length` or what the context holds; none without one."""
    file = work / "tokenizer.json"
    if not file.is_file():
        return []
    return text.tokens(Tokenizer.from_file(file), manifest.vocab_size, min(length, manifest.context_length), count)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ExportError(
            f"the export needs more memory than there is ({error or 'no size given'}); "
            "check the sizes in the model's config, or export on a larger machine"
        ) from error


def _check_layers(checkpoint: Checkpoint) -> None:
    """Each layer has tensors; a number beyond reason would keep the graph builder busy for ever."""
    tensors = len(checkpoint.tensors)
    for key in ("num_hidden_layers", "n_layer"):
        layers = checkpoint.config.get(key)
        if isinstance(layers, int) and layers > tensors:
            raise TensorError(
                f"config.json: {key} is {layers}, and the checkpoint has only {tensors} tensors; "
                "check that config.json and the weights belong together"
            )


def _check_combination(precision: str, target: Target, kv_cache: KVCacheType) -> None:
    if target == "cuda" and precision == "fp32":
        raise ExportError(
            "CUDA's attention kernel has no float32; export with --precision fp16 for CUDA, or fp32 for the CPU"
        )
    if target == "cuda" and kv_cache == "int8":
        raise ExportError(
            "packages for CUDA have a float16 key/value cache only; leave out --kv-cache int8, or export for the CPU"
        )
