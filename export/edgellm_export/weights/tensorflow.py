"""TensorFlow's variables under the names and in the layouts that PyTorch has for them.

As transformers 4.57 translates them (`convert_tf_weight_name_to_pt_weight_name`): the model's own name is left out,
`_._` is a new level, of `a___b` remains `b`, kernels are transposed, and a bias may be stored with an axis too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgellm.errors import TensorError
from edgellm_export.weights.safetensors import SafetensorsTensor
from edgellm_export.weights.strided import StridedTensor, contiguous

LAST = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"}


def translated(variables: Mapping[str, StridedTensor]) -> dict[str, StridedTensor]:
    """`variables`: by TensorFlow's names, the model's own included. Raises TensorError."""
    found = {}
    for name, variable in variables.items():
        levels = levels_of(name)
        view = replace(variable, name=".".join([*levels[:-1], LAST.get(levels[-1], levels[-1])]))
        if levels[-1] == "kernel":
            view = _transposed(view)
        elif levels[-1] == "bias" and len(view.shape) == 2 and view.shape[0] == 1:
            view = replace(view, shape=view.shape[1:], strides=view.strides[1:])
        found[view.name] = view
    return found


def of_safetensors(tensors: Mapping[str, SafetensorsTensor]) -> dict[str, StridedTensor]:
    """The same for a SafeTensors file of TensorFlow's, where the model's own name is left out already."""
    views = (StridedTensor(t.name, t.shape, t.dtype, t.path, t.offset, contiguous(t.shape)) for t in tensors.values())
    return translated({f"model/{view.name}": view for view in views})


def levels_of(name: str) -> list[str]:
    """The parts of a variable's name that PyTorch has too, the last one still by TensorFlow's name."""
    first, *others = name.replace(":0", "").split("/")
    others[:-1] = [level.rpartition("___")[2] for level in others[:-1]]
    return [level for part in others or [first] for level in part.split("_._") if level] or [name]


def _transposed(view: StridedTensor) -> StridedTensor:
    if len(view.shape) != 2:
        raise TensorError(
            f"{view.name} has the shape {list(view.shape)}: a convolution, which edgellm does not read from "
            "TensorFlow's files; save the model with PyTorch"
        )
    return replace(view, shape=view.shape[::-1], strides=view.strides[::-1])
