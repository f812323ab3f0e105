"""compressed-tensors (llm-compressor): integers, packed or not, fp8, MXFP8, MXFP4 and NVFP4, matrix by matrix.

Read as compressed-tensors does (`compressors/`, `quantization/lifecycle/forward_helpers.py`). What it says of
activations and of the key/value cache is not about weights: the package rounds its activations in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from edgellm.errors import TensorError
from edgellm.types import ByteArray, FloatArray, IntArray
from edgellm_export.checkpoint.integers import Integers, QuantizedTensor
from edgellm_export.checkpoint.patterns import SECONDS, end_in_time
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.prequantized.contract import (
    FLOAT_TYPES,
    ORIGINAL,
    Options,
    Scales,
    Stored,
    StoredTensor,
    misshapen,
    whole,
)
from edgellm_export.prequantized.fp8 import FP8Tensor
from edgellm_export.prequantized.levels import IntegerTensor, unpacked, widths, words_for
from edgellm_export.prequantized.mxfp4 import fp4_values

FORMATS = (
    "pack-quantized",
    "int-quantized",
    "naive-quantized",
    "float-quantized",
    "mxfp8-quantized",
    "mxfp4-pack-quantized",
    "nvfp4-pack-quantized",
    "mixed-precision",
)
# Of activations and of the key/value cache.
BESIDE = (".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale", ".output_zero_point",
          ".k_scale", ".v_scale", ".q_scale", ".k_zero_point", ".v_zero_point", ".q_zero_point")  # fmt: skip
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "shared")  # layers that are no Linear
TYPES = {"int4": ("int", 4), "int8": ("int", 8), "fp4": ("float", 4), "fp8": ("float", 8)}
PATTERN = "re:"


@dataclass(frozen=True)
class Scheme:
    """How the weights of the layers `targets` are stored. `block`: rows and columns that share a scale; None are all
    of them."""

    targets: tuple[str, ...]
    bits: int
    block: tuple[int | None, int | None]


@dataclass(frozen=True)
class CTIntegers(IntegerTensor):
    """`packed`: words [rows, columns * bits / 32], or int8 [rows, columns]. `zero_points`: words along the rows,
    [rows * bits / 32, groups]; or int8, like the scales; None for the middle."""

    packed: StoredTensor
    scales: Scales
    zero_points: Scales | StoredTensor | None

    @property
    def middle(self) -> int:
        return 1 << (self.bits - 1)

    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        scales = self.scales.rows(start, stop)
        return self._levels(start, stop), scales, self._zeros(start, stop, scales)

    def _levels(self, start: int, stop: int) -> ByteArray:
        stored = self.packed.stored(start, stop)
        return (
            stored.view(np.uint8) ^ np.uint8(128)
            if stored.itemsize == 1
            else unpacked(stored, self.bits, self.shape[1])
        )

    def _zeros(self, start: int, stop: int, scales: FloatArray) -> FloatArray:
        if self.zero_points is None:
            return np.full(scales.shape, self.middle, np.float32)
        if isinstance(self.zero_points, Scales):
            return self.zero_points.rows(start, stop) + np.float32(self.middle)
        words = whole(self.zero_points)
        return unpacked(words.T, self.bits, self.shape[0])[:, start:stop].T.astype(np.float32)


@dataclass(frozen=True)
class CTFloat4(QuantizedTensor):
    """Two numbers of type E2M1 in a byte. `packed`: [rows, columns / 2]. `divisor`: of all scales (NVFP4)."""

    packed: StoredTensor
    scales: Scales
    divisor: FloatArray

    def rows(self, start: int, stop: int) -> FloatArray:
        found = fp4_values(self.packed.stored(start, stop))
        found *= widths(self._scales(start, stop), self.scales.width, self.shape[1])
        return found

    def integers(self, start: int, stop: int) -> Integers:
        """Halves: they fit eight bits."""
        halves = fp4_values(self.packed.stored(start, stop)) * 2 + 128
        scales = np.asarray(self._scales(start, stop) / 2, np.float32)
        middles = np.full(scales.shape, 128, np.float32)
        return Integers(8, self.scales.width, halves.astype(np.uint8), scales, middles, written=4)

    def _scales(self, start: int, stop: int) -> FloatArray:
        return self.scales.rows(start, stop) / self.divisor


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    options.one_of("format", "dense", FORMATS)
    options.must_lack("transform_config", "moe_sparsity_config")
    sparsity = options.data.get("sparsity_config") or {}
    if not isinstance(sparsity, Mapping) or sparsity.get("format", "dense") != "dense":
        raise options.refused("sparsity_config", sparsity, "none")
    stored.drop(*BESIDE)
    schemes = [_scheme(options, name, group) for name, group in _groups(options).items()]
    found: dict[str, LazyTensor] = {}
    names = dict.fromkeys(stored.ending(".weight_packed", ".weight_scale"))
    _check_time(options, schemes, names)
    for name in names:
        found[f"{name}.weight"] = _matrix(options, stored, name, _scheme_of(name, schemes))
    return found


def activations(config: Mapping[str, Any]) -> str | None:
    """The types that layers' inputs are rounded to, such as int8."""
    groups = config.get("config_groups")
    found = [group.get("input_activations") for group in groups.values()] if _are_objects(groups) else []
    types = [(each.get("type", "int"), each.get("num_bits", 8)) for each in found if isinstance(each, Mapping)]
    return ", ".join(sorted(name for name in TYPES if TYPES[name] in types)) or None


def _are_objects(groups: Any) -> TypeGuard[Mapping[str, Mapping[str, Any]]]:
    return isinstance(groups, Mapping) and all(isinstance(group, Mapping) for group in groups.values())


def _groups(options: Options) -> Mapping[str, Any]:
    groups = options.data.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise options.wrong("config_groups", groups, "an object with the layers of each scheme")
    return groups


def _scheme(options: Options, name: str, group: Any) -> Scheme:
    place = f"config_groups.{name}"
    if not isinstance(group, Mapping):
        raise options.refused(place, group, "schemes that are spelled out")
    inner = Options(f"{options.method}", {f"{place}.format": group.get("format")})
    inner.one_of(f"{place}.format", FORMATS[0], FORMATS)
    targets, weights = group.get("targets"), group.get("weights")
    if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
        raise options.wrong(f"{place}.targets", targets, "a list of names")
    for target in targets:
        _check_pattern(options, place, target)
    if not isinstance(weights, Mapping):  # activations alone
        return Scheme(tuple(targets), 0, (None, None))
    said = Options(options.method, {f"{place}.weights.{key}": value for key, value in weights.items()})
    bits = said.one_of(f"{place}.weights.num_bits", 8, range(2, 9))
    return Scheme(tuple(targets), bits, _block(said, f"{place}.weights"))


def _check_pattern(options: Options, place: str, target: str) -> None:
    if not target.startswith(PATTERN):
        return
    pattern = target.removeprefix(PATTERN)
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise options.wrong(f"{place}.targets", target, f"a regular expression ({error})") from error


def _check_time(options: Options, schemes: list[Scheme], names: Iterable[str]) -> None:
    """One scheme is that of all layers, whatever it says of their names."""
    targets = [target for scheme in schemes for target in scheme.targets if target.startswith(PATTERN)]
    patterns = [target.removeprefix(PATTERN) for target in targets]
    if len(schemes) > 1 and not end_in_time(patterns, names):
        raise options.refused("config_groups", targets, f"patterns that match in {SECONDS} seconds")


def _block(said: Options, place: str) -> tuple[int | None, int | None]:
    """By the strategy, or else by the group size, as compressed-tensors infers it."""
    size, key = said.data.get(f"{place}.group_size"), f"{place}.strategy"
    inferred = "tensor" if size is None else "channel" if size == -1 else "group"
    match said.one_of(key, inferred, ("tensor", "channel", "group", "tensor_group", "block")):
        case "tensor":
            return None, None
        case "channel":
            return 1, None
        case "block":
            return _structure(said, f"{place}.block_structure")
    if type(size) is not int or size < 1:
        raise said.wrong(f"{place}.group_size", size, "a number of columns")
    return 1, size


def _structure(said: Options, key: str) -> tuple[int, int]:
    value = said.data.get(key)
    found = value.split("x") if isinstance(value, str) else value
    if isinstance(found, list) and len(found) == 2 and all(map(_is_count, found)):
        return int(found[0]), int(found[1])
    raise said.wrong(key, value, "two numbers of rows and columns")


def _is_count(value: object) -> bool:
    """Whether a number, or text, is a whole number above 0 that Python turns text into."""
    return len(str(value)) < 10 and str(value).isdecimal() and int(str(value)) > 0


def _scheme_of(name: str, schemes: list[Scheme]) -> Scheme:
    """As compressed-tensors finds it: by the layer's name, by a pattern, or by its class."""
    if len(schemes) == 1:
        return schemes[0]
    known = {target: scheme for scheme in schemes for target in scheme.targets}
    for target in sorted(known, key=lambda each: (PATTERN in each, each)):
        pattern = target.removeprefix(PATTERN)
        if target == name or (target.startswith(PATTERN) and re.match(pattern, name)):
            return known[target]
    kind = "Embedding" if name.rpartition(".")[2] in EMBEDDINGS else "Linear"
    if kind in known:
        return known[kind]
    raise TensorError(f"{name} is quantized, and no target of config.json's config_groups is its name; {ORIGINAL}")


def _matrix(options: Options, stored: Stored, name: str, scheme: Scheme) -> LazyTensor:
    if scheme.bits == 0:
        raise TensorError(f"{name} is quantized, and the weights of its group in config.json's config_groups are not")
    packed = stored.optional(f"{name}.weight_packed", ("I32", "U8"))
    numbers = stored.matrix(f"{name}.weight", ("I8", "F8_E4M3", *FLOAT_TYPES)) if packed is None else packed
    if numbers.dtype in FLOAT_TYPES:
        raise options.refused("quantization_status", options.data.get("quantization_status"), "'compressed'")
    if len(numbers.shape) != 2 or 0 in numbers.shape:
        raise misshapen(numbers, "a matrix")
    shape = _shape(stored, name, numbers, scheme)
    scales = _scales(stored.take(f"{name}.weight_scale", (*FLOAT_TYPES, "U8", "F8_E4M3", "F8_E8M0")), shape, scheme)
    weight = f"{name}.weight"
    match numbers.dtype:
        case "F8_E4M3":
            return FP8Tensor(weight, shape, numbers, scales)
        case "U8":
            divisor = stored.optional(f"{name}.weight_global_scale", ("F32",), (1,))
            return CTFloat4(weight, shape, numbers, scales, _one(divisor))
    groups = _groups_of_columns(stored, name, shape, scales)
    bits = 8 if numbers.dtype == "I8" else scheme.bits
    zero_points = _zero_points(stored, name, shape, scales, bits)
    return CTIntegers(weight, shape, bits, scales.width, groups, numbers, scales, zero_points)


def _shape(stored: Stored, name: str, numbers: StoredTensor, scheme: Scheme) -> tuple[int, int]:
    rows, columns = numbers.shape
    if numbers.dtype == "U8":
        return rows, 2 * columns
    if numbers.dtype != "I32":
        return rows, columns
    room = columns * 32 // scheme.bits if scheme.bits else 0
    said = stored.optional(f"{name}.weight_shape", ("I64", "I32"), (2,))
    found = (rows, room) if said is None else tuple(int(each) for each in whole(said))
    if found == (0, 0):  # there is only the header of the file
        found = rows, room
    if found[0] != rows or not 0 < found[1] <= room or words_for(found[1], scheme.bits) != columns:
        raise misshapen(numbers, f"that of {list(found)} weights of {scheme.bits} bits in words of 32")
    return rows, found[1]


def _scales(tensor: StoredTensor, shape: tuple[int, int], scheme: Scheme) -> Scales:
    height, width = (min(of or size, size) for of, size in zip(scheme.block, shape, strict=True))
    grid = (-(-shape[0] // height), -(-shape[1] // width))
    if not _is_grid(tensor.shape, grid):
        raise misshapen(tensor, f"{list(grid)}, by its scheme")
    return Scales(tensor, height, width)


def _is_grid(shape: tuple[int, ...], grid: tuple[int, int]) -> bool:
    """Dimensions of 1 may be left out from the last one on."""
    return shape == grid or (grid[1] == 1 and shape == grid[:1]) or (grid == (1, 1) and shape == ())


def _groups_of_columns(stored: Stored, name: str, shape: tuple[int, int], scales: Scales) -> IntArray | None:
    """Where columns were ordered by the size of their inputs, and each says its group; -1 if they were not."""
    index = stored.optional(f"{name}.weight_g_idx", ("I32", "I64"), shape[1:])
    if index is None:
        return None
    found = whole(index).astype(np.int64)
    if found.max() >= -(-shape[1] // scales.width) or found.min() < -1:
        raise misshapen(scales.tensor, f"a column for each group of {index.name}")
    in_order = found.min() == -1 or np.array_equal(found, np.arange(shape[1]) // scales.width)
    return None if in_order else found


def _zero_points(
    stored: Stored, name: str, shape: tuple[int, int], scales: Scales, bits: int
) -> Scales | StoredTensor | None:
    found = stored.optional(f"{name}.weight_zero_point", ("I32", "I8"))
    if found is None:
        return None
    if found.dtype == "I8":
        if found.shape != scales.tensor.shape:
            raise misshapen(found, f"{list(scales.tensor.shape)}, as its scales have")
        middle = 1 << (bits - 1)
        values = whole(found)
        if values.min() < -middle or values.max() >= middle:
            raise TensorError(f"{found.name} has numbers beyond {bits} bits; {ORIGINAL}")
        return Scales(found, scales.height, scales.width)
    packed = (words_for(shape[0], bits), -(-shape[1] // scales.width))
    if found.shape != packed:
        raise misshapen(found, f"{list(packed)}, by its scales")
    return found


def _one(tensor: StoredTensor | None) -> FloatArray:
    return np.ones(1, np.float32) if tensor is None else tensor.rows(0, 1)
