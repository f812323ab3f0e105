"""The installed ONNX Runtime, with its telemetry off, and the devices that it can run on."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal

from edgellm.errors import MissingDependencyError, OptionError, ProviderError

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
INSTALL = "`pip install edgellm[cpu]`, or `pip install edgellm[cuda]` for an NVIDIA GPU"

log = logging.getLogger("edgellm")


def onnxruntime() -> Any:
    """The module, with its telemetry off. The variable must be set before the first import in the process."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError(f"edgellm needs ONNX Runtime, which is not installed: {INSTALL}") from error
    if not hasattr(ort, "InferenceSession"):  # what is left after the CPU and the CUDA wheel overwrote each other
        raise MissingDependencyError(
            f"the installed onnxruntime is broken; run `pip uninstall onnxruntime onnxruntime-gpu`, then {INSTALL}"
        )
    ort.disable_telemetry_events()  # for the case that somebody else imported it first
    return ort


def version() -> str:
    return str(onnxruntime().__version__)


def choose_device(requested: str, target: Device) -> Device:
    """The device to run a package on that was exported for `target`. Raises ProviderError where they do not fit.

    A CUDA package may be asked onto the CPU explicitly: slow, but it lets its numbers be checked without a GPU.
    """
    if requested not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device is {requested!r}, expected 'auto', 'cpu' or 'cuda'")
    device: Device = target if requested == "auto" else requested  # type: ignore[assignment]
    if device == "cuda" and target == "cpu":
        raise ProviderError(
            "this package was exported for the CPU and cannot run on CUDA; "
            "export it again with --target cuda, or load it with device='cpu'"
        )
    if device == "cuda":
        _require_cuda()
    if requested == "auto":
        log.info("device: %s (the package was exported for it)", device)
    elif device != target:
        log.warning("running a package for %s on the %s: correct but slow", target, device)
    return device


def _require_cuda() -> None:
    ort = onnxruntime()
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        raise ProviderError(
            f"CUDA was asked for, but the installed onnxruntime {ort.__version__} has no CUDA provider (it has "
            f"{', '.join(ort.get_available_providers())}); run `pip uninstall onnxruntime`, then "
            "`pip install edgellm[cuda]`; a CUDA package runs slowly with device='cpu' for checks"
        )
