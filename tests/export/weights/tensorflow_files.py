"""Small tf_model.h5 files as transformers 4.57 writes them.

`data/tensorflow.json` is what it wrote of a small model of each family, and where its own function
`load_tf2_checkpoint_in_pytorch_model` put each variable: a line has the variable's name and shape, the tensor's name in
PyTorch (null for what it does not read), and what was done to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FAMILIES: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "tensorflow.json").read_text())


def write_tensorflow(path: Path, family: str) -> dict[str, npt.NDArray[np.float32]]:
    """Writes config.json and tf_model.h5 with random numbers. Returns what PyTorch has of them, by its names."""
    import h5py

    rng, expected = np.random.default_rng(0), {}
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(FAMILIES[family]["config"]))
    layers, made = FAMILIES[family]["layers"], {}
    with h5py.File(path / "tf_model.h5", "w") as file:
        file.attrs["layer_names"] = list(layers)
        for layer, variables in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name for name, *_ in variables]
            for name, shape, tensor, change in variables:
                array = made.setdefault(name, (rng.standard_normal(shape) / 8).astype(np.float32))
                group.create_dataset(name, data=array)
                if tensor is not None:
                    expected[tensor] = CHANGES[change](array)
    return expected


CHANGES = {
    "": lambda array: array,
    "transposed": lambda array: np.ascontiguousarray(array.T),
    "without its first axis": lambda array: array[0],
}
