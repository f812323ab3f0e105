"""What a decoding step reads of a graph's weights, from the ONNX file alone and without the onnx package.

Only the fields that matter are decoded; the numbers are those of onnx.proto (onnx 1.19).
"""

from __future__ import annotations

import math
import mmap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import PackageCorruptError

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OP_TYPE, NODE_ATTRIBUTE = 1, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT = 1, 3
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_EXTERNAL = 1, 2, 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2

BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
FLOAT16 = (10, 16)

# Inputs of which a step reads a row or so, not the whole.
LOOKED_UP = {
    "Gather": (0,),
    "GatherBlockQuantized": (0, 2, 3),
    "GroupQueryAttention": (7, 8),
    "RotaryEmbedding": (2, 3),
}
# Inputs that are not parameters of the model: scales, zero points, tables.
NOT_PARAMETERS = {
    "MatMulNBits": (2, 3), "GatherBlockQuantized": (2, 3), "DequantizeLinear": (1, 2), "GroupQueryAttention": (7, 8),
    "RotaryEmbedding": (2, 3), "MatMulInteger": (2, 3), "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
}  # fmt: skip

Bytes = memoryview
Use = tuple[str, int, Mapping[str, int]]  # operator, input number, whole-number attributes


@dataclass(frozen=True)
class GraphWeights:
    """`bytes_per_step`: read for one decoding step, however many rows it has; lookups are left out, and float16 that
    the graph widens to float32 counts as float32. `parameters`: numbers the model was trained to.
    """

    bytes_per_step: int
    parameters: int


@dataclass(frozen=True)
class Tensor:
    name: str
    dims: tuple[int, ...]
    data_type: int
    storage: tuple[str, ...]  # tensors that share their bytes have the same

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


def graph_weights(path: Path) -> GraphWeights:
    """Raises PackageCorruptError where `path` is not an ONNX model."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            tensors, uses = _read_model(mapped)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise PackageCorruptError(f"{path} is not an ONNX model: {error}; copy or export the package again") from error
    of_storage: dict[tuple[str, ...], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        of_storage[tensor.storage].append(tensor)
    return GraphWeights(
        bytes_per_step=sum(max(_bytes_read(t, uses[t.name]) for t in shared) for shared in of_storage.values()),
        parameters=sum(max(_parameters(t, uses[t.name]) for t in shared) for shared in of_storage.values()),
    )


def _bytes_read(tensor: Tensor, uses: Sequence[Use]) -> int:
    reads = [operator for operator, number, _ in uses if number not in LOOKED_UP.get(operator, ())]
    if not reads:
        return 0
    widened = tensor.data_type in FLOAT16 and set(reads) == {"Cast"}
    return tensor.elements * (32 if widened else BITS[tensor.data_type]) // 8


def _parameters(tensor: Tensor, uses: Sequence[Use]) -> int:
    return max((_parameters_for(tensor, use) for use in uses), default=0)


def _parameters_for(tensor: Tensor, use: Use) -> int:
    operator, number, attributes = use
    if number in NOT_PARAMETERS.get(operator, ()) or tensor.data_type in (6, 7):  # shapes, axes
        return 0
    if operator == "MatMulNBits" and number == 1:  # packed, and padded to whole blocks
        return attributes["N"] * attributes["K"]
    if operator == "GatherBlockQuantized" and tensor.data_type == 2:  # packed into bytes
        return tensor.elements * 8 // attributes.get("bits", 4)
    return tensor.elements


def _read_model(mapped: mmap.mmap) -> tuple[list[Tensor], Mapping[str, Sequence[Use]]]:
    tensors: list[Tensor] = []
    uses: dict[str, list[Use]] = defaultdict(list)
    with memoryview(mapped) as model:
        for graph in _messages(model, MODEL_GRAPH):
            tensors += [_tensor(each) for each in _messages(graph, GRAPH_INITIALIZER)]
            for node in _messages(graph, GRAPH_NODE):
                _add_uses(uses, node)
            graph.release()
    return tensors, uses


def _add_uses(uses: dict[str, list[Use]], node: Bytes) -> None:
    operator = next(_texts(node, NODE_OP_TYPE))
    attributes: dict[str, int] = {}
    for attribute in _messages(node, NODE_ATTRIBUTE):
        whole = next((value for field, value in _fields(attribute) if field == ATTRIBUTE_INT), None)
        if isinstance(whole, int):
            attributes[next(_texts(attribute, ATTRIBUTE_NAME))] = whole
    for number, name in enumerate(_texts(node, NODE_INPUT)):
        uses[name].append((operator, number, attributes))


def _tensor(message: Bytes) -> Tensor:
    name = next(_texts(message, TENSOR_NAME), "")
    data_type, dims = 0, list[int]()
    for field, value in _fields(message):
        if field == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif field == TENSOR_TYPE and isinstance(value, int):
            data_type = value
    entries = {
        next(_texts(entry, ENTRY_KEY), ""): next(_texts(entry, ENTRY_VALUE), "")
        for entry in _messages(message, TENSOR_EXTERNAL)
    }
    place = (entries["location"], entries.get("offset", "0")) if entries else (name,)
    return Tensor(name, tuple(dims), data_type, place)


def _messages(data: Bytes, wanted: int) -> Iterator[Bytes]:
    return (value for field, value in _fields(data) if field == wanted and not isinstance(value, int))


def _texts(data: Bytes, wanted: int) -> Iterator[str]:
    return (bytes(message).decode() for message in _messages(data, wanted))


def _packed(data: Bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _fields(data: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Field numbers and values of a protocol buffer message: whole numbers, or the bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield field, number
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {field} has the unknown wire type {kind}")
        if at + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield field, data[at : at + size]
        at += size


def _varint(data: Bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next byte lies."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
        shift += 7
