"""A graph that ONNX Runtime has loaded, on one device, with its threads. Its errors are edgellm's."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import EdgellmError, OptionError, OutOfMemoryError, ProviderError, corrupt
from edgellm.ort.binding import AnyArray, Binding, DeviceArray
from edgellm.ort.kernels import KernelChoice, exchange, library
from edgellm.ort.library import PROVIDERS, Device, onnxruntime
from edgellm.ort.process import LeftToParent, native, remember
from edgellm.package.manifest import KVCacheChoice
from edgellm.system.cpu import adds_int8_products_in_16_bits, usable_cores

MAX_THREADS = 1024
SEVERITY_ERROR = 3  # ONNX Runtime's log level; below it are warnings about our optional inputs
SEVERITY_FATAL = 4  # what fails in a run is an exception, which has the same text
ALLOCATION_FAILURES = ("Failed to allocate memory", "bad_alloc", "bad allocation", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class LoadSettings:
    """How the caller of `edgellm.load` wants a package run. `threads`: None is every core this process may use."""

    device: Device
    threads: int | None
    spinning: bool
    prefill_chunk: int
    kernels: KernelChoice = "auto"
    kv_cache: KVCacheChoice = "auto"

    def open(self, graph: Path, *, fuse: bool = False) -> LoadedGraph:
        """`fuse` is as for LoadedGraph."""
        return LoadedGraph(
            graph,
            self.device,
            threads=self.threads,
            spinning=self.spinning,
            fuse=fuse,
            kernels=self.kernels,
            kv_cache=self.kv_cache,
        )


class LoadedGraph:
    """One ONNX graph on one device. `run` of it and its bindings may be called from several threads.

    `fuse`: have ONNX Runtime join operators, in graphs that do not arrive fused. `kernels`: "auto" takes edgellm's own
    where they are installed and a file has operators for them; the attribute says for which instruction set, None is
    ONNX Runtime's alone. `kv_cache`: "bfloat16" has them keep keys and values so, where the file has float32; its ports
    are of uint16 then. `is_exact`: what it computes for a token is the same to the last bit, whatever is beside it.
    """

    def __init__(
        self,
        model: Path | bytes,
        device: Device = "cpu",
        *,
        threads: int | None = None,
        spinning: bool = True,
        fuse: bool = False,
        kernels: KernelChoice = "auto",
        kv_cache: KVCacheChoice = "auto",
    ) -> None:
        ort = onnxruntime()
        self.device: Device = device
        self.threads = _check_threads(threads)
        options = _session_options(ort, self.threads, spinning, fuse)
        exchanges = kernels == "auto" and device == "cpu"
        if kv_cache != "auto" and not exchanges:
            raise _no_such_cache(kv_cache, device, kernels)
        ours = exchange(model, options, kv_cache) if exchanges and isinstance(model, Path) else None
        self.kernels = None if ours is None else ours.instruction_set
        self.is_exact = ours is not None and ours.attends
        if kv_cache != "auto" and ours is not None and not self.is_exact:  # other operators may read the cache, too
            raise _no_such_cache(kv_cache, device, kernels)
        source = ours.graph if ours is not None else model if isinstance(model, bytes) else str(model)
        if device == "cuda":
            _preload_cuda(ort)
        with native, _load_errors(ort, "the graph" if isinstance(model, bytes) else str(model)):
            self._session = ort.InferenceSession(source, options, providers=_providers(device))
        if kv_cache != "auto" and ours is None:  # nor damaged, which ONNX Runtime would have said
            raise _no_such_cache(kv_cache, device, kernels)
        self._session.disable_fallback()
        self._quiet = _run_options(ort)
        self.provider: str = self._session.get_providers()[0]
        if self.provider != PROVIDERS[device]:
            raise ProviderError(
                "CUDA was asked for, but ONNX Runtime could not start its CUDA provider: it needs an NVIDIA driver, "
                "CUDA 13 and cuDNN 9 (`pip install onnxruntime-gpu[cuda,cudnn]` brings the libraries)"
            )
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.inputs: tuple[str, ...] = tuple(i.name for i in inputs)
        self.optional_inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_overridable_initializers())
        self.outputs: tuple[str, ...] = tuple(o.name for o in outputs)
        self.input_types: dict[str, str] = {i.name: i.type for i in inputs}
        self.output_types: dict[str, str] = {o.name: o.type for o in outputs}
        self.input_shapes: dict[str, list[int | str | None]] = {i.name: i.shape for i in inputs}
        self.output_shapes: dict[str, list[int | str | None]] = {o.name: o.shape for o in outputs}
        remember(self)

    def bind(self) -> Binding:
        return Binding(self._session.io_binding(), self.run_bound, self.device)

    def run(self, inputs: Mapping[str, AnyArray], outputs: Sequence[str]) -> list[DeviceArray]:
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


def _no_such_cache(kv_cache: KVCacheChoice, device: Device, kernels: KernelChoice) -> OptionError:
    if device != "cpu":
        why, otherwise = "the device is CUDA", "choose the CPU"
    elif kernels != "auto":
        why, otherwise = f"kernels is {kernels!r}", "leave that out"
    elif library() is None:
        why, otherwise = "they are not there", "do what `edgellm doctor` says of kernels"
    else:
        why = "some of this graph's is ONNX Runtime's"
        otherwise = "take a package that was exported without --attentions"
    return OptionError(
        f"kv_cache is {kv_cache!r}, which needs edgellm's own CPU kernels for all attention, and {why}; leave kv_cache "
        f"out, or {otherwise}"
    )


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


def _run_options(ort: Any) -> Any:
    options = ort.RunOptions()
    options.log_severity_level = SEVERITY_FATAL
    # ONNX Runtime asks for it at every run; finding nothing is an exception there, 1% of a small model's token.
    options.add_run_config_entry("gpu_graph_id", "0")
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
