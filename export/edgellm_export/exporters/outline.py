"""What a package will be made of, before any weight is read: tensors without content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.integers import UnusedBias
from edgellm_export.checkpoint.tensors import LazyTensor, ZeroTensor


def hollow(checkpoint: Checkpoint) -> Checkpoint:
    """The same without its weights."""

    def hollowed(tensors: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
        return {name: _hollow(name, tensor) for name, tensor in tensors.items()}

    return replace(checkpoint, tensors=hollowed(checkpoint.tensors), steps=hollowed(checkpoint.steps))


def _hollow(name: str, tensor: LazyTensor) -> LazyTensor:
    zeros = ZeroTensor(name, tensor.shape)
    return UnusedBias(name, tensor.shape, zeros) if isinstance(tensor, UnusedBias) else zeros
