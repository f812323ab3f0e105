"""ONNX Runtime, wrapped: devices, threads, binding, errors. No other module imports onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgellm.errors import (
    EdgellmError,
    MissingDependencyError,
    OptionError,
    OutOfMemoryError,
    ProviderError,
    corrupt,
)
from edgellm.ort.forks import LeftToParent, remember
from edgellm.ort.shutdown import native
from edgellm.system.cpu import adds_int8_products_in_16_bits
from edgellm.system.threads import usable_cores
from edgellm.types import Array

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
INSTALL = "`pip install edgellm[cpu]`, or `pip install edgellm[cuda]` for an NVIDIA GPU"
MAX_THREADS = 1024
SEVERITY_ERROR = 3  # ONNX Runtime's log level; below it are warnings about our optional inputs
SEVERITY_FATAL = 4  # what fails in a run is an exception, which has the same text
ALLOCATION_FAILURES = ("Failed to allocate memory", "bad_alloc", "bad allocation", "CUBLAS_STATUS_ALLOC_FAILED")

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


@dataclass(frozen=True)
class LoadSettings:
    """How the caller of `edgellm.load` wants a package run. `threads`: None is every core this process may use."""

    device: Device
    threads: int | None
    spinning: bool
    prefill_chunk: int

    def open(self, graph: Path, *, fuse: bool = False) -> Session:
        """`fuse`: see Session."""
        return Session(graph, self.device, threads=self.threads, spinning=self.spinning, fuse=fuse)


class Session:
    """One ONNX graph on one device. `run` of it and its bindings may be called from several threads.

    `fuse`: have ONNX Runtime join operators, in graphs that do not arrive fused.
    """

    def __init__(
        self,
        model: Path | bytes,
        device: Device = "cpu",
        *,
        threads: int | None = None,
        spinning: bool = True,
        fuse: bool = False,
    ) -> None:
        ort = onnxruntime()
        self.device: Device = device
        self.threads = _check_threads(threads)
        options = _session_options(ort, self.threads, spinning, fuse)
        source = model if isinstance(model, bytes) else str(model)
        if device == "cuda":
            _preload_cuda(ort)
        with native, _load_errors(ort, "the graph" if isinstance(model, bytes) else str(model)):
            self._session = ort.InferenceSession(source, options, providers=_providers(device))
        self._session.disable_fallback()
        self._quiet = ort.RunOptions()
        self._quiet.log_severity_level = SEVERITY_FATAL
        # ONNX Runtime asks for it at every run; finding nothing is an exception there, 1% of a small model's token.
        self._quiet.add_run_config_entry("gpu_graph_id", "0")
        self.provider: str = self._session.get_providers()[0]
        if self.provider != PROVIDERS[device]:
            raise ProviderError(
                "CUDA was asked for, but ONNX Runtime could not start its CUDA provider: it needs an NVIDIA driver, "
                "CUDA 13 and cuDNN 9 (`pip install onnxruntime-gpu[cuda,cudnn]` brings the libraries)"
            )
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.optional_inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_overridable_initializers())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        self.input_types: dict[str, str] = {i.name: i.type for i in self._session.get_inputs()}
        self.output_types: dict[str, str] = {o.name: o.type for o in self._session.get_outputs()}
        self.input_shapes: dict[str, list[int | str | None]] = {i.name: i.shape for i in self._session.get_inputs()}
        self.output_shapes: dict[str, list[int | str | None]] = {o.name: o.shape for o in self._session.get_outputs()}
        remember(self)

    def bind(self) -> Binding:
        return Binding(self, self._session.io_binding())

    def run(self, inputs: Mapping[str, Array | DeviceArray], outputs: Sequence[str]) -> list[DeviceArray]:
        """One run with nothing bound: for graphs whose outputs change their shape from run to run."""
        ort = onnxruntime()
        feeds = {
            name: value.value if isinstance(value, DeviceArray) else ort.OrtValue.ortvalue_from_numpy(value)
            for name, value in inputs.items()
        }
        with native, _run_errors():
            found = self._session.run_with_ort_values(list(outputs), feeds, self._quiet)
        return [DeviceArray(value) for value in found]

    def run_bound(self, binding: Any) -> None:
        with native, _run_errors():
            self._session.run_with_iobinding(binding, self._quiet)

    def leave_to_parent(self) -> None:
        """After a fork, in the child: refuse to run from now on."""
        self._session = LeftToParent(self._session)


class Binding:
    """Inputs and outputs of a session tied to memory, so that a run moves nothing it does not have to.

    Bound arrays are kept alive here; raw addresses are the caller's to keep valid until they are bound anew.
    `in_place`: a run sees what was written to an input array after binding it.
    """

    def __init__(self, session: Session, binding: Any) -> None:
        self.in_place = session.device == "cpu"
        self._ort = onnxruntime()
        self._session = session
        self._binding = binding
        self._kept: dict[str, Any] = {}
        self._order: list[str] = []  # of the first binding of each output: how ONNX Runtime returns them

    def input(self, name: str, array: Array) -> None:
        """For a CUDA session the array is copied to the device now: bind again after changing it."""
        value = self._value(array)
        self._binding.bind_ortvalue_input(name, value)
        self._kept[name] = (array, value)

    def input_at(self, name: str, array: Array, address: int) -> None:
        """`input` for an array bound anew at each step: cheaper, as its first byte's address is known already."""
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, address)
        self._kept[name] = array

    def output(self, name: str, array: Array) -> None:
        """The run writes into `array`, whose shape must be the one it computes."""
        value = self._value(array)
        self._binding.bind_ortvalue_output(name, value)
        self._remember(name, (array, value))

    def new_output(self, name: str, device: Device = "cpu") -> None:
        """The run allocates this output; fetch it with `fetch` or `fetch_device`."""
        self._binding.bind_output(name, device)
        self._remember(name, None)

    def address(
        self, inputs: str, outputs: str, device: Device, dtype: npt.DTypeLike, shape: Sequence[int], at: int
    ) -> None:
        """Bind the memory at `at` as an input and as an output: the run works on it in place."""
        self._binding.bind_input(inputs, device, 0, dtype, shape, at)
        self._binding.bind_output(outputs, device, 0, dtype, shape, at)
        self._remember(outputs, None)

    def device_input(self, name: str, array: DeviceArray) -> None:
        self._binding.bind_ortvalue_input(name, array.value)
        self._kept[name] = array

    def run(self) -> None:
        self._session.run_bound(self._binding)

    def fetch(self, name: str) -> Array:
        """What the last run wrote to a `new_output` on the CPU."""
        return np.asarray(self.fetch_device(name).value.numpy())

    def fetch_device(self, name: str) -> DeviceArray:
        return DeviceArray(self._binding.get_outputs()[self._order.index(name)])

    def _remember(self, name: str, kept: Any) -> None:
        if name not in self._order:
            self._order.append(name)
        self._kept[name] = kept

    def _value(self, array: Array) -> Any:
        value = self._ort.OrtValue.ortvalue_from_numpy(array)
        # ONNX Runtime silently copies an array that is not contiguous, and writes would then go astray.
        assert value.data_ptr() == array.ctypes.data, "bound arrays must be C-contiguous"
        return value


class DeviceArray:
    """A tensor that ONNX Runtime owns, on the device where it lies."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.address: int = value.data_ptr()
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.nbytes: int = value.tensor_size_in_bytes()

    def numpy(self) -> Array:
        return np.asarray(self.value.numpy())


def _check_threads(threads: int | None) -> int:
    if threads is None:
        return usable_cores()
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise OptionError(
            f"threads is {threads!r}, expected a whole number from 1 to {MAX_THREADS}, or None for all usable cores"
        )
    return threads


def _session_options(ort: Any, threads: int, spinning: bool, fuse: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = SEVERITY_ERROR
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Our own graphs arrive fused; what is left to do at load is constant folding.
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fuse else levels.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if spinning:
        # A decoder spends some hundred microseconds between runs; threads that fell asleep meanwhile cost 3 to 7%.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
    if adds_int8_products_in_16_bits():
        # Multiplies uint8 by uint8 instead, by a rewriting of the graph that belongs to the next level.
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if fuse else levels.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")
    # No parallel prepacking: measured on two cores it loads no faster and peaks at a third more memory.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _providers(device: Device) -> list[Any]:
    if device == "cpu":
        return [PROVIDERS["cpu"]]
    return [(PROVIDERS["cuda"], {"arena_extend_strategy": "kSameAsRequested"}), PROVIDERS["cpu"]]


def _preload_cuda(ort: Any) -> None:
    """Find CUDA and cuDNN among the installed wheels; what is missing shows when the provider fails to start."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        ort.preload_dlls()


@contextlib.contextmanager
def _load_errors(ort: Any, name: str) -> Iterator[None]:
    state = ort.capi.onnxruntime_pybind11_state
    broken = (state.InvalidProtobuf, state.InvalidGraph, state.NoSuchFile, state.InvalidArgument)
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(f"{name} does not fit in memory") from error
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        if isinstance(error, broken) or "xternal " in str(error):
            raise corrupt(f"{name} cannot be loaded: {_first_line(error)}", or_copy=True) from error
        if _is_out_of_memory(error):
            raise OutOfMemoryError(f"{name} does not fit in memory: {_first_line(error)}") from error
        raise ProviderError(f"ONNX Runtime cannot load {name}: {_first_line(error)}") from error


@contextlib.contextmanager
def _run_errors() -> Iterator[None]:
    try:
        yield
    except EdgellmError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        if _is_out_of_memory(error):
            raise OutOfMemoryError(
                "no memory for running the model; use a shorter prompt, a smaller prefill_chunk, or fewer rows or beams"
            ) from error
        raise ProviderError(f"ONNX Runtime failed while running the model: {_first_line(error)}") from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in ALLOCATION_FAILURES)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
