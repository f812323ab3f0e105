"""A program that lists the arrays of an HDF5 file, of its own because the HDF5 library is: a damaged file can keep it
busy for ever, or crash it. `python hdf5_structure.py FILE` prints one JSON object.

Each layer is a group that the file's attribute `layer_names` lists, each array lies below its layer under a name that
the group's attribute `weight_names` lists; a list that is too long for one attribute is cut into `layer_names0`,
`layer_names1` and so on. The arrays lie in one piece each. Nothing in a file leads outside of it: links and arrays in
other files are refused.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

MAX_NAMES = 1 << 16
MEMORY = 1 << 30  # bytes of address space beyond what the libraries take
SECONDS = 5  # of the processor's time
LAYERS, WEIGHTS = "layer_names", "weight_names"
ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, OverflowError, MemoryError)

Array = tuple[str, int, list[int], str]  # name, offset in bytes, shape, type as numpy writes it


def main(path: Path) -> None:
    """Prints {"arrays": [...]}, {"error": why not} or {"missing": what is not installed}."""
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    _limit()
    try:
        found: dict[str, Any] = {"arrays": arrays(path)}
    except ERRORS as error:
        found = {"error": str(error)}
    print(json.dumps(found))


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, resource.RLIM_INFINITY))


def arrays(path: Path) -> list[Array]:
    """The arrays that the layers list. Raises one of ERRORS."""
    import h5py

    with h5py.File(path, "r") as file:
        if file.userblock_size:
            raise ValueError("there is something in front of it")
        if LAYERS not in file.attrs and f"{LAYERS}0" not in file.attrs:
            raise ValueError(f"it has no {LAYERS}: it was not written by save_pretrained")
        groups = [_below(h5py, file, layer) for layer in _names(file.attrs, LAYERS)]
        return [
            _array(name, _below(h5py, group, name), path) for group in groups for name in _names(group.attrs, WEIGHTS)
        ]


def _names(attributes: Any, key: str) -> list[str]:
    """The names in an attribute, or in those that it goes on in."""
    parts = [attributes[key]] if key in attributes else []
    while key not in attributes and f"{key}{len(parts)}" in attributes:
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


def _array(name: str, array: Any, path: Path) -> Array:
    """Where the numbers of an array lie, which Keras writes in one piece."""
    offset = array.id.get_offset()
    if array.chunks is not None or array.is_virtual or array.external or (offset is None and array.size):
        raise ValueError(f"{name} is not stored in one piece, as Keras does")
    if offset is not None and offset + array.nbytes > path.stat().st_size:
        raise ValueError(f"{name} ends behind the file")
    return name, offset or 0, list(array.shape), array.dtype.str


if __name__ == "__main__":
    main(Path(sys.argv[1]))
