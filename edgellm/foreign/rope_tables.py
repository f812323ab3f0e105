"""Graphs that choose between two pairs of rotary tables by the length of the sequence, as LongRoPE has them:

attention_mask -> Shape -> Gather -> Greater(limit) -> If -> cos_cache, sin_cache
"""

from __future__ import annotations

import struct
from pathlib import Path

from edgellm.errors import PackageError
from edgellm.package.manifest import Rope
from edgellm.package.onnx_file import GraphFacts, Node, initializers_of, nodes_of, parsed, read_tensor
from edgellm.package.protobuf import Bytes, messages, number

TENSOR_INTS, TENSOR_RAW = 7, 9
INT64 = 7


def rope_of(path: Path, facts: GraphFacts) -> Rope:
    """What the graph's choice of tables asks of the runtime. Raises PackageError for one that chooses in another
    way."""
    if "If" not in facts.operators:
        return Rope()
    limits = parsed(path, _limits)
    if len(limits) != 1 or limits[0] < 1:
        raise PackageError(
            f"{path.name} chooses among parts of itself (If), and not by a single length: edgellm cannot know what a "
            "prompt in pieces would get; run it with onnxruntime-genai, or export the checkpoint"
        )
    return Rope(recompute_beyond=limits[0])


def _limits(graph: Bytes) -> list[int]:
    """What the conditions of the graph's choices compare with; 0 for another kind of condition."""
    nodes = {output: node for node in nodes_of(graph) for output in node.outputs}
    constants = initializers_of(graph) | {
        output: tensor
        for node in nodes_of(graph)
        if node.operator == "Constant"
        for output, tensor in zip(node.outputs, node.tensors, strict=False)
    }
    choices = {node.inputs[0] for node in nodes.values() if node.operator == "If" and node.inputs}
    return [_limit(nodes.get(condition), constants) for condition in sorted(choices)]


def _limit(condition: Node | None, constants: dict[str, Bytes]) -> int:
    if condition is None or condition.operator != "Greater" or len(condition.inputs) != 2:
        return 0
    tensor = constants.get(condition.inputs[1])
    if tensor is None or read_tensor(tensor).data_type != INT64 or read_tensor(tensor).elements != 1:
        return 0
    raw = next(messages(tensor, TENSOR_RAW), None)
    if raw is not None:
        return int(struct.unpack("<q", raw)[0]) if len(raw) == 8 else 0
    return number(tensor, TENSOR_INTS) or 0
