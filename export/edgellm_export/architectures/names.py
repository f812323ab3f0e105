"""Checkpoints of one family name their tensors in more than one way; from here on there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgellm.types import FloatArray
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.tensors import ArrayTensor, LazyTensor

# model_type -> the prefix that a checkpoint saved without its head lacks
PREFIXES = {"gpt2": "transformer."}
DEFAULT_PREFIX = "model."
HEAD = "lm_head.weight"
HEAD_BIAS = "final_logits_bias"  # stored as a matrix with one row
# Encoder-decoders: the embedding of sources and targets, and the names that it may have instead, without the prefix.
SHARED, ALIASES = "shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def canonical(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with each tensor under its family's full name, and without a head that is tied anyway."""
    prefix = PREFIXES.get(str(checkpoint.config.get("model_type")), DEFAULT_PREFIX)
    tensors: Mapping[str, LazyTensor] = checkpoint.tensors
    if tensors and not any(name.startswith(prefix) for name in tensors):
        tensors = {name if name == HEAD else prefix + name: tensor for name, tensor in tensors.items()}
    return replace(checkpoint, tensors=tensors)


def canonical_encoder_decoder(checkpoint: Checkpoint, prefix: str, defaults: Mapping[str, FloatArray]) -> Checkpoint:
    """The same for an encoder-decoder whose names begin with `prefix`. `defaults`: of tensors that may be missing."""
    tensors = dict(checkpoint.tensors)
    if tensors and not any(name.startswith(prefix) for name in tensors):
        whole = (HEAD, HEAD_BIAS)
        tensors = {name if name in whole else prefix + name: tensor for name, tensor in tensors.items()}
    found = [prefix + name for name in ALIASES if prefix + name in tensors]
    if len(found) != len(ALIASES) and prefix + SHARED not in tensors:  # one stands for all that are tied
        for name in [*found, *[HEAD] * (HEAD in tensors)][:1]:
            tensors[prefix + SHARED] = tensors[name]
    if HEAD_BIAS in tensors:
        row = tensors[HEAD_BIAS]
        tensors[HEAD_BIAS] = ArrayTensor(HEAD_BIAS, row.rows(0, row.shape[0]).reshape(-1))
    missing = {name: ArrayTensor(name, array) for name, array in defaults.items() if name not in tensors}
    return replace(checkpoint, tensors={**tensors, **missing})
