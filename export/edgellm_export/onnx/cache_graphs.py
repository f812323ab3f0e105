"""The small graphs with which the runtime moves cache rows on a device: `python -m edgellm_export.onnx.cache_graphs`.

They ship inside `edgellm/engines/graphs`, so that the runtime needs no onnx; a test compares them with what
is built here.
"""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, TensorProto, helper

import edgellm.engines

DIRECTORY = Path(edgellm.engines.__file__).parent / "graphs"
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
OPSET, IR_VERSION = 21, 10


def move_rows(dtype: str) -> ModelProto:
    """moved = rows `parents` of `cache`, their first `used` tokens followed by `spare` tokens of zeros.

    cache: [slots, rows, heads, capacity, head_dim]; moved: [slots, len(parents), heads, used + spare, head_dim].
    """
    kind = DTYPES[dtype]
    cache = helper.make_tensor_value_info("cache", kind, ["slots", "rows", "heads", "capacity", "head_dim"])
    moved = helper.make_tensor_value_info("moved", kind, ["slots", "new_rows", "heads", "new_capacity", "head_dim"])
    parents = helper.make_tensor_value_info("parents", TensorProto.INT64, ["new_rows"])
    lengths = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("used", "spare")]
    zero = helper.make_tensor("", kind, [1], [0])
    nodes = [
        helper.make_node("Slice", ["cache", "zero", "used", "token_axis"], ["used_part"]),
        helper.make_node("Gather", ["used_part", "parents"], ["rows"], axis=1),
        helper.make_node("Shape", ["rows"], ["front"], start=0, end=3),
        helper.make_node("Shape", ["rows"], ["head_dim"], start=4),
        helper.make_node("Concat", ["front", "spare", "head_dim"], ["padding_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["padding_shape"], ["padding"], value=zero),
        helper.make_node("Concat", ["rows", "padding"], ["moved"], axis=3),
    ]
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [i]) for name, i in (("zero", 0), ("token_axis", 3))]
    graph = helper.make_graph(nodes, "move_rows", [cache, parents, *lengths], [moved], constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgellm")


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for dtype in DTYPES:
        (DIRECTORY / f"move_rows_{dtype}.onnx").write_bytes(move_rows(dtype).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
