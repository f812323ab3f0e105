"""Checkpoints of one family name their tensors in more than one way; from here on there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgellm_export.checkpoint import Checkpoint
from edgellm_export.tensors import LazyTensor

# model_type -> the prefix that a checkpoint saved without its head lacks
PREFIXES = {"gpt2": "transformer."}
DEFAULT_PREFIX = "model."
HEAD = "lm_head.weight"


def canonical(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with each tensor under its family's full name, and without a head that is tied anyway."""
    prefix = PREFIXES.get(str(checkpoint.config.get("model_type")), DEFAULT_PREFIX)
    tensors: Mapping[str, LazyTensor] = checkpoint.tensors
    if tensors and not any(name.startswith(prefix) for name in tensors):
        tensors = {name if name == HEAD else prefix + name: tensor for name, tensor in tensors.items()}
    return replace(checkpoint, tensors=tensors)
