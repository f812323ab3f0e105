"""The tensors of an adapter, sorted by what they do to a module of the base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgellm_export.checkpoint.tensors import LazyTensor

PREFIX = "base_model.model."
# `.default`, the name that most adapters have in memory, is in files that others than PEFT wrote.
FACTOR = re.compile(r"(.+)\.lora_(A|B|embedding_A|embedding_B)(?:\.default)?(?:\.weight)?")
BIAS = re.compile(r"(.+)\.lora_B(?:\.default)?\.bias")
MAGNITUDE = re.compile(r"(.+)\.lora_(magnitude_vector)(?:\.default)?(?:\.weight)?")
WORDS = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?")
WRAPPED = re.compile(r"(.+)\.(?:original_module|modules_to_save)\.(\w+)")
BASE_LAYER = re.compile(r"(.+)\.base_layer\.(\w+)")


@dataclass(frozen=True)
class Factors:
    """A module's low-rank matrices as they are stored: a [rank, inputs] and b [outputs, rank]; of an embedding a
    [rank, words] and b [size, rank]. `bias`: added behind b. `magnitude`: of DoRA, [outputs]."""

    a: LazyTensor
    b: LazyTensor
    bias: LazyTensor | None
    magnitude: LazyTensor | None
    is_embedding: bool


@dataclass(frozen=True)
class Parts:
    """By the names that modules have in the base: low-rank matrices, and rows of single words. `whole`: tensors by name
    that take the place of the base's. `unknown`: the names of what is none of these."""

    factors: Mapping[str, Factors]
    words: Mapping[str, LazyTensor]
    whole: Mapping[str, LazyTensor]
    unknown: tuple[str, ...]


def sort_tensors(tensors: Mapping[str, LazyTensor]) -> Parts:
    named = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    modules: dict[str, dict[str, LazyTensor]] = {}
    words, whole, unknown = {}, {}, []
    for name, tensor in named.items():
        if found := FACTOR.fullmatch(name) or MAGNITUDE.fullmatch(name):
            modules.setdefault(found[1], {})[found[2]] = tensor
        elif found := BIAS.fullmatch(name):
            modules.setdefault(found[1], {})["bias"] = tensor
        elif found := WORDS.fullmatch(name):
            words[found[1]] = tensor
        elif found := BASE_LAYER.fullmatch(name):
            whole[f"{found[1]}.{found[2]}"] = tensor
        elif ".lora_" in name:
            unknown.append(name)
        elif not _is_copy(name, named):
            whole[name] = tensor
    factors = {module: whole_one for module, each in modules.items() if (whole_one := _factors(each))}
    halves = [f"{module}.lora_{part}" for module in modules.keys() - factors.keys() for part in modules[module]]
    return Parts(factors, words, whole, (*unknown, *sorted(halves)))


def _is_copy(name: str, named: Mapping[str, LazyTensor]) -> bool:
    """What PEFT writes twice, with all biases of a module that it saves whole."""
    found = WRAPPED.fullmatch(name)
    return found is not None and f"{found[1]}.{found[2]}" in named


def _factors(tensors: Mapping[str, LazyTensor]) -> Factors | None:
    """None where a matrix is missing."""
    for prefix in ("", "embedding_"):
        a, b = tensors.get(f"{prefix}A"), tensors.get(f"{prefix}B")
        if a is not None and b is not None:
            return Factors(a, b, tensors.get("bias"), tensors.get("magnitude_vector"), is_embedding=bool(prefix))
    return None
