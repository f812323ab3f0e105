"""What a decoding step reads of a graph's weights, from the ONNX file alone and without the onnx package."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.inspection.experts import expert_shares
from edgellm.package.onnx_file import GRAPH_INITIALIZER, Tensor, nodes_of, parsed, read_tensor
from edgellm.package.protobuf import Bytes, messages

BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
FLOAT16 = (10, 16)
FLOATS = (1, *FLOAT16)

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
    """What a graph's weights amount to. `bytes_per_step`: read for one decoding step, however many rows it has, but for
    experts, of which those count that one row chooses; lookups are left out, and float16 that the graph widens to
    float32 counts as float32. `parameters`: numbers the model was trained to."""

    bytes_per_step: int
    parameters: int


def graph_weights(path: Path) -> GraphWeights:
    """The weights of the graph in `path`. Raises PackageCorruptError where that is not an ONNX model."""
    stored = stored_weights(path).values()
    return GraphWeights(sum(each.bytes_per_step for each in stored), sum(each.parameters for each in stored))


@dataclass(frozen=True)
class StoredWeight:
    """Bytes of a graph's file, whatever the number of constants that share them. `loaded_bytes`: in memory, on the CPU;
    what is only looked up stays in the file, and floats that are multiplied as well count twice, as they lie and as
    they are packed. `width`: the larger side of a matrix that is multiplied, or 0."""

    bytes_per_step: int
    parameters: int
    loaded_bytes: int
    width: int


def stored_weights(path: Path) -> dict[tuple[str, ...], StoredWeight]:
    """The weights in a graph's file, by place: graphs beside each other may share some. Raises PackageCorruptError
    where `path` is not an ONNX model."""
    tensors, uses, experts = parsed(path, _tensors_and_uses)
    shared: dict[tuple[str, ...], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        shared[tensor.storage if tensor.location else (path.name, tensor.name)].append(tensor)
    return {place: _stored(together, uses, experts) for place, together in shared.items()}


def _stored(tensors: Sequence[Tensor], uses: Mapping[str, Sequence[Use]], experts: Mapping[str, float]) -> StoredWeight:
    together = [use for tensor in tensors for use in uses[tensor.name]]
    both = any(_looked_up(use) for use in together) and tensors[0].data_type in FLOATS
    copies = 1 + both if _multiplied(together) else 0
    return StoredWeight(
        bytes_per_step=max(
            int(_size(t, uses[t.name]) * experts.get(t.name, 1)) if _multiplied(uses[t.name]) else 0 for t in tensors
        ),
        parameters=max(_parameters(t, uses[t.name]) for t in tensors),
        loaded_bytes=copies * max(_size(t, uses[t.name]) for t in tensors),
        width=max(max(t.dims) if len(t.dims) > 1 and _multiplied(uses[t.name]) else 0 for t in tensors),
    )


def _size(tensor: Tensor, uses: Sequence[Use]) -> int:
    """The tensor's bytes; float16 that is only widened counts as what it becomes."""
    widened = tensor.data_type in FLOAT16 and set(_multiplied(uses)) == {"Cast"}
    return tensor.elements * (32 if widened else BITS[tensor.data_type]) // 8


def _multiplied(uses: Sequence[Use]) -> list[str]:
    """The operators that read all of it."""
    return [use[0] for use in uses if not _looked_up(use)]


def _looked_up(use: Use) -> bool:
    operator, number, _ = use
    return number in LOOKED_UP.get(operator, ())


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


def _tensors_and_uses(graph: Bytes) -> tuple[list[Tensor], Mapping[str, Sequence[Use]], Mapping[str, float]]:
    uses: dict[str, list[Use]] = defaultdict(list)
    for node in nodes_of(graph):
        operator, numbers = node.operator, node.numbers
        for place, name in enumerate(node.inputs):
            uses[name].append((operator, place, numbers))
    return [read_tensor(message) for message in messages(graph, GRAPH_INITIALIZER)], uses, expert_shares(graph)
