"""HDF5 files as Keras writes weights. Needs h5py, of the tf extra, in a process of its own: see `hdf5_structure`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from edgellm.errors import CheckpointError, MissingDependencyError
from edgellm_export.weights import hdf5_structure
from edgellm_export.weights.hdf5_structure import Array
from edgellm_export.weights.strided import StridedTensor, contiguous
from edgellm_export.weights.values import check_no_pointer

DTYPES = {
    "<f2": "F16", "<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"
}  # fmt: skip


def read_hdf5(path: Path) -> dict[str, StridedTensor]:
    """The arrays by the names that their layers list. Raises CheckpointError or MissingDependencyError."""
    with path.open("rb") as file:
        check_no_pointer(path, file.read(32))
    # -P: the program's own directory has modules with the names of libraries.
    command = [sys.executable, "-P", hdf5_structure.__file__, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise _damaged(path, f"the HDF5 library cannot read it (status {done.returncode})")
    found = json.loads(done.stdout)
    if "missing" in found:
        raise MissingDependencyError(
            f"reading TensorFlow's {path.name} needs h5py ({found['missing']}); run `pip install edgellm[tf]`"
        )
    if "error" in found:
        raise _damaged(path, found["error"])
    return tensors_of(path, found["arrays"])


def tensors_of(path: Path, arrays: Iterable[Array]) -> dict[str, StridedTensor]:
    """Raises CheckpointError for a type that Keras does not write."""
    tensors = {}
    for name, offset, shape, kind in arrays:
        if kind not in DTYPES:
            raise _damaged(path, f"{name} has type {kind}")
        tensors[name] = StridedTensor(name, tuple(shape), DTYPES[kind], path, offset, contiguous(shape))
    return tensors


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged, or not weights of a TensorFlow model: {why}; download or copy it again")
