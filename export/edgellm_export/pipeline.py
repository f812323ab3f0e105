"""An export from start to end: the steps in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ExportError, QualityGateError, TensorError
from edgellm.manifest import KVCacheType, Manifest, Precision, Target
from edgellm.tokenizer import Tokenizer
from edgellm_export.architectures import Architecture, open_architecture
from edgellm_export.build import CacheScales
from edgellm_export.calibrate import channel_scales
from edgellm_export.checkpoint import IGNORED, Checkpoint, TensorReader, open_checkpoint
from edgellm_export.decoder_graph import ChannelScales, build_decoder
from edgellm_export.evaluation_text import calibration_tokens
from edgellm_export.float_run import FloatRun, PackageLayers
from edgellm_export.kv_calibration import cache_scales
from edgellm_export.names import canonical
from edgellm_export.output import check_target, new_directory
from edgellm_export.package import GRAPH, make_manifest, seal, write_side_files
from edgellm_export.quantize import scheme_for
from edgellm_export.report import Report
from edgellm_export.segments import DataFile
from edgellm_export.verify import verify
from edgellm_export.writer import write_graph

Progress = Callable[[str, int, int], None]


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
    progress: Progress | None = None,
) -> Exported:
    """Export the checkpoint `source` (directory, hub id or .gguf file) to the package directory `out`.

    int8 and int4 weights are prepared with channel scales from built-in calibration text, if the checkpoint has a
    tokenizer and `calibrate` is set. `kv_cache`: "float" is the type of the graph's activations; "int8", a quarter of
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
        scales, calibration = _calibrate(work, original, manifest, calibrate, report_progress)
        cache = _calibrate_cache(work, original, manifest, report_progress) if kv_cache == "int8" else []
        layers = _write_weights(work, architecture, tensors, manifest, scales, cache, report_progress)
        manifest = seal(work, manifest)
        report = verify(work, manifest, original, layers, calibration, report_progress) if verify_quality else None
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
    work: Path, original: FloatRun, manifest: Manifest, wanted: bool, progress: Progress
) -> tuple[ChannelScales, str]:
    """Channel scales for the weights, and the text they come from."""
    file = work / "tokenizer.json"
    if not (wanted and file.is_file() and scheme_for(manifest.weights.precision, manifest.target).calibrated):
        return {}, "none"
    length = min(128, manifest.context_length)
    sequences = calibration_tokens(Tokenizer.from_file(file), manifest.vocab_size, length, 1024)
    if not sequences:
        return {}, "none"
    scales = channel_scales(original, sequences, lambda done, total: progress("calibrate", done, total))
    return scales, f"{sum(map(len, sequences))} tokens of English text"


def _calibrate_cache(work: Path, original: FloatRun, manifest: Manifest, progress: Progress) -> Sequence[CacheScales]:
    """Scales for an int8 key/value cache. Raises ExportError where there is no text to find them with."""
    file = work / "tokenizer.json"
    length = min(256, manifest.context_length)
    tokenizer = Tokenizer.from_file(file) if file.is_file() else None
    sequences = calibration_tokens(tokenizer, manifest.vocab_size, length, 4096) if tokenizer else []
    if not sequences:
        raise ExportError(
            "an int8 key/value cache needs scales from calibration text, and the checkpoint has no tokenizer that "
            f"makes {length} tokens of it; export with the tokenizer's files, or with --kv-cache float"
        )
    return cache_scales(original, sequences, lambda done, total: progress("calibrate cache", done, total))


def _write_weights(
    work: Path,
    architecture: Architecture,
    tensors: TensorReader,
    manifest: Manifest,
    scales: ChannelScales,
    cache: Sequence[CacheScales],
    progress: Progress,
) -> PackageLayers:
    """Graph and weights of the package."""
    scheme = scheme_for(manifest.weights.precision, manifest.target)
    built = build_decoder(architecture, tensors, scheme, scales, cache)
    offsets = write_graph(built, work / GRAPH, progress=lambda done, total: progress("weights", done, total))
    return PackageLayers(architecture, tensors, scheme, scales, cache, DataFile(work / f"{GRAPH}.data", offsets))


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
