"""HDF5 files as Keras writes weights: which arrays they hold and where their numbers lie. Needs h5py, of the tf extra.

Each layer is a group that the file's attribute `layer_names` lists, each array lies below its layer under a name that
the group's attribute `weight_names` lists; a list that is too long for one attribute is cut into `layer_names0`,
`layer_names1` and so on. The arrays lie in one piece each. Nothing in a file leads outside of it: links and arrays in
other files are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, MissingDependencyError
from edgellm_export.weights.strided import StridedTensor, contiguous
from edgellm_export.weights.values import check_no_pointer

DTYPES = {
    "<f2": "F16", "<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"
}  # fmt: skip
MAX_NAMES = 1 << 16
LAYERS, WEIGHTS = "layer_names", "weight_names"


def read_hdf5(path: Path) -> dict[str, StridedTensor]:
    """The arrays by the names that their layers list. Raises CheckpointError or MissingDependencyError."""
    with path.open("rb") as file:
        check_no_pointer(path, file.read(32))
    h5py = _import_h5py()
    with _explained(path), h5py.File(path, "r") as file:
        if file.userblock_size:
            raise ValueError("there is something in front of it")
        if LAYERS not in file.attrs and f"{LAYERS}0" not in file.attrs:
            raise ValueError(f"it has no {LAYERS}: it was not written by save_pretrained")
        tensors = {}
        for layer in _names(file.attrs, LAYERS):
            group = _below(h5py, file, layer)
            for name in _names(group.attrs, WEIGHTS):
                tensors[name] = _tensor(path, name, _below(h5py, group, name))
        return tensors


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            f"reading TensorFlow's tf_model.h5 needs h5py ({error}); run `pip install edgellm[tf]`"
        ) from error
    return h5py


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the library and we find wrong, as one error."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is damaged, or not weights of a TensorFlow model: {error}; download or copy it again"
        ) from error


def _names(attributes: Any, key: str) -> list[str]:
    """The names in an attribute, or in those that it goes on in."""
    if key in attributes:
        parts = [attributes[key]]
    else:
        parts = []
        while f"{key}{len(parts)}" in attributes:
            parts.append(attributes[f"{key}{len(parts)}"])
    names = [name.decode() if isinstance(name, bytes) else name for part in parts for name in part]
    if len(names) > MAX_NAMES or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"its {key} are no names")
    return names


def _below(h5py: Any, group: Any, name: str) -> Any:
    """What lies at a path below a group, by links that do not leave it."""
    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"it has nothing of its own at {name!r}")
        group = group[part]
    return group


def _tensor(path: Path, name: str, array: Any) -> StridedTensor:
    """Where the numbers of an array lie, which Keras writes in one piece."""
    offset, dtype = array.id.get_offset(), DTYPES.get(array.dtype.str)
    if dtype is None:
        raise ValueError(f"{name} has type {array.dtype}")
    if array.chunks is not None or array.is_virtual or array.external or (offset is None and array.size):
        raise ValueError(f"{name} is not stored in one piece, as Keras does")
    if offset is not None and offset + array.nbytes > path.stat().st_size:
        raise ValueError(f"{name} ends behind the file")
    return StridedTensor(name, tuple(array.shape), dtype, path, offset or 0, contiguous(array.shape))
