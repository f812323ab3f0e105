"""Which weights of a graph are those of experts, of which a token reads only some."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from edgellm.package.onnx_file import Node, initializers_of, nodes_of, read_tensor
from edgellm.package.protobuf import Bytes, messages

TENSOR_RAW, INT64 = 9, 7


def expert_shares(graph: Bytes) -> Mapping[str, float]:
    """Constants that only the tokens of one expert are multiplied by, and the share of a layer's experts that a token
    goes through. As edgellm's graphs have them: tokens that are gathered by the number of a choice over how many a
    token has, split among the experts, and what each makes joined again."""
    nodes, constants = [*nodes_of(graph)], initializers_of(graph)
    makers = {value: node for node in nodes for value in node.outputs}
    widened = {node.outputs[0]: node.inputs[0] for node in nodes if node.operator == "Cast"}
    of_expert: dict[str, float] = {}  # values
    found: dict[str, float] = {}
    for node in nodes:
        share = _share(node, makers, constants)
        if share is None:
            shares = [of_expert[name] for name in node.inputs if name in of_expert]
            if not shares or node.operator == "Concat":
                continue
            share = shares[0]
            weights = [widened.get(name, name) for name in node.inputs]
            found |= {name: share for name in weights if name in constants}
        of_expert |= dict.fromkeys(node.outputs, share)
    return found


def _share(split: Node, makers: Mapping[str, Node], constants: Mapping[str, Bytes]) -> float | None:
    """Of a node that splits tokens among experts."""
    if split.operator != "Split" or len(split.inputs) != 2 or split.inputs[1] in constants:
        return None
    gathered = makers.get(split.inputs[0])
    rows = None if gathered is None or gathered.operator != "Gather" else makers.get(gathered.inputs[1])
    if rows is None or rows.operator != "Div" or rows.inputs[1] not in constants:
        return None
    chosen = _number(constants[rows.inputs[1]])
    return None if chosen is None else min(1.0, chosen / len(split.outputs))


def _number(tensor: Bytes) -> int | None:
    found, raw = read_tensor(tensor), next(messages(tensor, TENSOR_RAW), None)
    if found.data_type != INT64 or found.elements != 1 or raw is None or len(raw) != 8:
        return None
    return int(struct.unpack("<q", raw)[0])
