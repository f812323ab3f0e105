"""The metadata below an architecture's prefix: each key is read, known to have no effect, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.reader import GgufFile

# What these say is nothing that changes a number: sizes that tensors have too, norms of a kind that the architecture
# does not have, and how the file came to be.
NO_EFFECT = {
    "vocab_size",
    "tensor_data_layout",
    "expert_used_count",
    "attention.group_norm_epsilon",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
}
# Keys that say nothing new while they have one of these values.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "logit_scale": (1.0,),
    "embedding_scale": (1.0,),
    "residual_scale": (1.0,),
    "attention.output_scale": (1.0,),
    "attention.value_scale": (1.0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
}
LISTED = 8
Config = dict[str, Any]


class Keys:
    """All that is missing or mistyped becomes one CheckpointError, all that nobody asked for one
    UnsupportedModelError."""

    def __init__(self, file: GgufFile, arch: str) -> None:
        self.file, self.arch = file, arch
        self._problems: list[str] = []
        self._asked: set[str] = set()

    def get(self, key: str) -> Any:
        self._asked.add(key)
        return plain(self.file.metadata.get(f"{self.arch}.{key}"))

    def number(self, key: str, default: Any = None) -> Any:
        """A positive number, or a list of the same one for each layer; 0 counts as absent. Without a default it is
        required."""
        value = self.get(key)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if type(value) in (int, float) and math.isfinite(value) and value > 0:
            return value
        if value not in (None, 0) or default is None:
            self.problem(
                f"{self.arch}.{key} is {'absent' if value is None else repr(value)}, expected a number above 0"
            )
            return 1 if default is None else default
        return default

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            self.problem(f"{self.arch}.{key} is {value!r}, expected a whole number")
            return 1
        return int(value)

    def must_be(self, key: str, *expected: Any) -> None:
        """Refuse a file whose `key` says that the model differs from what is built. Absent is as expected."""
        value = self.get(key)
        if value is not None and not any(_equal(value, one) for one in expected):
            raise UnsupportedModelError(
                f"{self.file.path}: {self.arch}.{key} is {value!r}; edgellm builds this architecture only with "
                f"{' or '.join(map(repr, expected))}"
            )

    def problem(self, text: str) -> None:
        self._problems.append(text)

    def check(self) -> None:
        if self._problems:
            raise CheckpointError(
                f"{self.file.path} lacks metadata that its architecture needs: {'; '.join(self._problems)}; "
                "convert it again with a current llama.cpp"
            )
        unknown = [key for key in self._left() if not self._is_neutral(key)]
        if unknown:
            listed = ", ".join(f"{self.arch}.{key}" for key in unknown[:LISTED])
            raise UnsupportedModelError(
                f"{self.file.path} has metadata that edgellm does not know, and that may change what the model "
                f"computes: {listed}; export the Hugging Face checkpoint that it was made from"
            )

    def _left(self) -> list[str]:
        prefix = f"{self.arch}."
        named = [key.removeprefix(prefix) for key in self.file.metadata if key.startswith(prefix)]
        return [key for key in named if key not in self._asked and key not in NO_EFFECT]

    def _is_neutral(self, key: str) -> bool:
        """0 counts as absent."""
        value = plain(self.file.metadata[f"{self.arch}.{key}"])
        return any(_equal(value, one) for one in (*NEUTRAL.get(key, ()), 0, "")) or (
            isinstance(value, list) and not any(value)
        )


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(expected, float) and type(value) in (int, float):
        return math.isclose(value, expected, rel_tol=1e-5)
    return bool(value == expected)


def check_heads(keys: Keys, kv_heads: int, head_dim: int) -> None:
    """Refuse a file with more or fewer heads of keys and values, or heads of another size or scale than that of their
    share of the hidden size."""
    keys.must_be("attention.head_count_kv", 0, kv_heads)
    keys.must_be("attention.key_length", 0, head_dim)
    keys.must_be("attention.value_length", 0, head_dim)
    keys.must_be("attention.scale", 0, head_dim**-0.5)


def layer_count(keys: Keys) -> int:
    layers = keys.integer("block_count")
    if layers > len(keys.file.tensors):
        keys.problem(f"{keys.arch}.block_count is {layers}, but there are {len(keys.file.tensors)} tensors")
        return 1
    return layers


def plain(value: Any) -> Any:
    """Numpy arrays as lists; float32 values as the decimal that was meant (1e-05, not 9.999999747378752e-06)."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    return float(str(np.float32(value))) if isinstance(value, float) else value
