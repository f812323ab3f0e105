"""Opening a package: what the manifest says of its model decides which class runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from edgellm.errors import OptionError, TaskError
from edgellm.models.decoder import Model, open_model
from edgellm.models.encoder import EncoderModel, open_encoder
from edgellm.models.encoder_decoder import EncoderDecoderModel, open_encoder_decoder
from edgellm.models.speech import SpeechModel, open_speech
from edgellm.ort.kernels import KernelChoice
from edgellm.ort.library import DeviceChoice, choose_device
from edgellm.ort.loaded_graph import LoadSettings
from edgellm.package.files import check_files, read_errors, read_manifest
from edgellm.package.manifest import (
    MANIFEST_NAME,
    TASKS,
    DecoderFacts,
    EncoderDecoderFacts,
    EncoderFacts,
    KVCacheChoice,
    Manifest,
    ModelFacts,
    SpeechFacts,
)

HASH_LIMIT = 64 * 1024 * 1024  # bytes; larger files are hashed only on request

AnyModel = Model | EncoderModel | EncoderDecoderModel | SpeechModel
M = TypeVar("M", bound=AnyModel)

Opener = Callable[[Path, Manifest[Any], LoadSettings], AnyModel]

# By what the manifest says of its model: the class of model, and what opens it.
CLASSES: Mapping[type[ModelFacts], tuple[type[AnyModel], Opener]] = {
    DecoderFacts: (Model, open_model),
    EncoderDecoderFacts: (EncoderDecoderModel, open_encoder_decoder),
    SpeechFacts: (SpeechModel, open_speech),
    EncoderFacts: (EncoderModel, open_encoder),
}


def load(
    path: str | PathLike[str],
    *,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    spinning: bool = True,
    verify: bool = False,
    prefill_chunk: int = 128,
    kernels: KernelChoice = "auto",
    kv_cache: KVCacheChoice = "auto",
) -> AnyModel:
    """Open the package directory `path`, or ONNX graphs that another tool made: see `read_package`.

    What comes back depends on the package's task: Model for text-generation, EncoderDecoderModel for
    text2text-generation, SpeechModel for automatic-speech-recognition, EncoderModel for the others.

    device: "auto" is what the package was exported for. threads: None is every core this process may use.
    spinning: threads wait actively for the next operator, which is fastest; False saves power.
    verify: compare every file with its sha256 (otherwise files above 64 MiB by size only).
    prefill_chunk: prompt tokens per run, in effect at least 2; smaller needs less memory and can be cancelled sooner.
    kernels: "auto" runs edgellm's own CPU kernels, where edgellm-kernels is installed, for those operators of ONNX
    Runtime that they replace; "off" runs ONNX Runtime's alone: the same numbers to rounding, slower.
    kv_cache: "auto" keeps keys and values as the package's graph does; "bfloat16" rounds those of a float32 cache, in
    half the memory. It needs edgellm's own kernels.
    Raises PackageError, ProviderError or MissingDependencyError.
    """
    if kernels not in ("auto", "off"):
        raise OptionError(f"kernels is {kernels!r}, expected 'auto' or 'off'")
    if kv_cache not in ("auto", "bfloat16"):
        raise OptionError(f"kv_cache is {kv_cache!r}, expected 'auto' or 'bfloat16'; others are chosen at the export")
    if type(prefill_chunk) is not int or prefill_chunk < 1:
        raise OptionError(f"prefill_chunk is {prefill_chunk!r}, expected a whole number from 1")
    package, manifest = read_package(Path(path))
    check_files(package, manifest, hash_limit=None if verify else HASH_LIMIT)
    chosen = choose_device(device, manifest.target)
    settings = LoadSettings(chosen, threads, spinning, prefill_chunk, kernels, kv_cache)
    _, opener = CLASSES[type(manifest.model)]
    return opener(package, manifest.loaded_as(kv_cache), settings)


def read_package(path: Path) -> tuple[Path, Manifest]:
    """The package directory and its manifest. For a directory of ONNX graphs without one, as optimum-cli and the ONNX
    community make them, or for one such graph, what they say of themselves. Raises PackageError."""
    with read_errors(path):
        if not (path / MANIFEST_NAME).is_file():
            from edgellm.foreign import is_foreign, read_foreign  # most programs never need it

            if is_foreign(path):
                return read_foreign(path)
    return path, read_manifest(path)


def load_as(
    kind: type[M],
    path: str | PathLike[str],
    *,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    kv_cache: KVCacheChoice = "auto",
) -> M:
    """`load`, for callers that need one class of model. Raises TaskError where the package is for another task."""
    check_task(kind, *read_package(Path(path)))
    model = load(path, device=device, threads=threads, kv_cache=kv_cache)
    assert isinstance(model, kind)
    return model


def check_task(kind: type[object], path: Path, manifest: Manifest) -> None:
    """Raises TaskError where `kind` is not the class that `manifest`'s package has."""
    if CLASSES[type(manifest.model)][0] is not kind:
        wanted = ", ".join(task for facts, (made, _) in CLASSES.items() if made is kind for task in TASKS[facts])
        raise TaskError(
            f"{path} is a package for {manifest.task}, and this needs one for {wanted}; "
            "look at packages with `edgellm inspect`"
        )
