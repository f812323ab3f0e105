"""ONNX Runtime's errors as edgellm's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from edgellm.errors import (
    EdgellmError,
    OutOfMemoryError,
    ProviderError,
    corrupt,
)

ALLOCATION_FAILURES = ("Failed to allocate memory", "bad_alloc", "bad allocation", "CUBLAS_STATUS_ALLOC_FAILED")


@contextlib.contextmanager
def load_errors(ort: Any, name: str) -> Iterator[None]:
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
def run_errors() -> Iterator[None]:
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
