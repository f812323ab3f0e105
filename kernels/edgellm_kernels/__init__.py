"""The library of edgellm's kernels: operators for ONNX Runtime in the domain "edgellm"."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}


def library() -> Path:
    """What `SessionOptions.register_custom_ops_library` takes."""
    return Path(__file__).with_name(f"edgellm_kernels{SUFFIXES.get(sys.platform, '.so')}")


@cache
def interface() -> int:
    """A number that is another one where operators mean something else. Raises OSError where the library cannot be
    loaded."""
    return int(ctypes.CDLL(str(library())).edgellm_kernels_interface())


@cache
def instruction_sets() -> tuple[str, ...]:
    """Those that this machine runs, the fastest first; the variable EDGELLM_KERNELS forces one. Raises OSError where
    the library cannot be loaded."""
    names = ctypes.CDLL(str(library())).edgellm_kernels_sets
    names.restype = ctypes.c_char_p
    return tuple(names().decode().split(","))
