"""What a decoding step reads of a graph's weights, from the ONNX file alone and without the onnx package."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.onnx_file import (
    ATTRIBUTE_INT,
    ATTRIBUTE_NAME,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OP_TYPE,
    Bytes,
    Tensor,
    messages,
    number,
    parsed,
    read_tensor,
    texts,
)

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

Use = tuple[str, int, Mapping[str, int]]  # operator, input number, whole-number attributes


@dataclass(frozen=True)
class GraphWeights:
    """`bytes_per_step`: read for one decoding step, however many rows it has; lookups are left out, and float16 that
    the graph widens to float32 counts as float32. `parameters`: numbers the model was trained to.
    """

    bytes_per_step: int
    parameters: int


def graph_weights(path: Path) -> GraphWeights:
    """Raises PackageCorruptError where `path` is not an ONNX model."""
    tensors, uses = parsed(path, _tensors_and_uses)
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


def _tensors_and_uses(graph: Bytes) -> tuple[list[Tensor], Mapping[str, Sequence[Use]]]:
    uses: dict[str, list[Use]] = defaultdict(list)
    for node in messages(graph, GRAPH_NODE):
        _add_uses(uses, node)
    return [read_tensor(message) for message in messages(graph, GRAPH_INITIALIZER)], uses


def _add_uses(uses: dict[str, list[Use]], node: Bytes) -> None:
    operator = next(texts(node, NODE_OP_TYPE))
    attributes: dict[str, int] = {}
    for attribute in messages(node, NODE_ATTRIBUTE):
        whole = number(attribute, ATTRIBUTE_INT)
        if whole is not None:
            attributes[next(texts(attribute, ATTRIBUTE_NAME))] = whole
    for place, name in enumerate(texts(node, NODE_INPUT)):
        uses[name].append((operator, place, attributes))
