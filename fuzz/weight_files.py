"""Files of weights out of what is to be damaged in them: a pickle in a zip archive or among its neighbours, the layout
of an HDF5 file."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from typing import Any

STORAGES = {"0": bytes(64), "1": bytes(range(64)), "2": b""}
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MOST = 32  # layers, or arrays of one


def zipped(data: bytes) -> bytes:
    """A torch file with the pickle `data`, and some storages."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in STORAGES.items():
            archive.writestr(f"archive/data/{key}", content)
    return made.getvalue()


def behind_one_another(data: bytes) -> bytes:
    """A file of the format before torch 1.6 that ends in `data`: names and tensors, storages' keys, storages."""
    return b"".join(pickle.dumps(value, 2) for value in (MAGIC, VERSION, {"little_endian": True})) + data


def hdf5_bytes(data: dict[str, Any]) -> bytes:
    """A file of {"layers": names, "arrays": {layer: {name: [shape, type]}}, "listed": {layer: names}}; parts of another
    form are left out."""
    import h5py

    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        with contextlib.suppress(Exception):
            file.attrs["layer_names"] = data["layers"]
        arrays, listed = data.get("arrays"), data.get("listed")
        for layer, entries in list(arrays.items())[:MOST] if isinstance(arrays, dict) else []:
            with contextlib.suppress(Exception):
                group = file.require_group(layer)
                for name, (shape, kind) in list(entries.items())[:MOST]:
                    with contextlib.suppress(Exception):
                        _array(group, name, shape, kind)
                group.attrs["weight_names"] = listed[layer]
    return made.getvalue()


def _array(group: Any, name: str, shape: list[int], kind: str) -> None:
    import numpy as np

    if 0 <= int(np.prod(shape)) <= 1 << 12:
        group.create_dataset(name, data=np.zeros(shape, kind))
