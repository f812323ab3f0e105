"""A directory of ONNX graphs as other tools make them: one layer of attention, a cache that concatenates, and the flaws
that such graphs have had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

VOCAB, HEADS, DIM, CONTEXT = 61, 2, 8, 64
HIDDEN = HEADS * DIM
PAST = [f"past_key_values.0.{side}" for side in ("key", "value")]
PRESENT = [f"present.0.{side}" for side in ("key", "value")]


@dataclass(frozen=True)
class Flaws:
    """`counts_padding`: no position ids, so that a token's position is its place. `sees_ahead`: several tokens behind a
    past see each other, as when a graph was traced with one. `shares_scale`: one scale rounds all rows' activations."""

    counts_padding: bool = False
    sees_ahead: bool = False
    shares_scale: bool = False


def write_directory(path: Path, flaws: Flaws = Flaws(), *, folder: str = "", split: bool = False) -> Path:
    """`split`: a graph without a past and one with it."""
    (path / folder).mkdir(parents=True)
    config = {"model_type": "toy", "max_position_embeddings": CONTEXT, "eos_token_id": VOCAB - 1, "bos_token_id": 1}
    (path / "config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [VOCAB - 1]}))
    if split:
        save_model(toy_graph(flaws, has_past=False), path / folder / "decoder_model.onnx")
        save_model(toy_graph(flaws), path / folder / "decoder_with_past_model.onnx")
    else:
        save_model(toy_graph(flaws), path / folder / "model.onnx")
    return path


def toy_graph(flaws: Flaws = Flaws(), *, has_past: bool = True) -> Any:
    g = _Graph()
    past_len = g.op("Gather", g.op("Shape", PAST[0]), g.int(2)) if has_past else g.int(0)
    count = g.op("Gather", g.op("Shape", "input_ids"), g.int(1))
    total = g.op("Add", past_len, count)
    places = g.op("Range", past_len, total, g.int(1))
    embedded = g.op("Gather", g.weight("embed", VOCAB, HIDDEN), "input_ids")
    positions = g.weight("positions", CONTEXT, HIDDEN)
    x = g.op("Add", embedded, g.op("Gather", positions, places if flaws.counts_padding else "position_ids"))
    if flaws.shares_scale:
        levels, scale, zero = g.ops("DynamicQuantizeLinear", x, outputs=3)
        x = g.op("DequantizeLinear", levels, scale, zero)
    q, k, v = (_heads(g, g.op("MatMul", x, g.weight(name, HIDDEN, HIDDEN))) for name in "qkv")
    for i, new in enumerate((k, v)):
        g.op("Concat" if has_past else "Identity", *([PAST[i]] * has_past), new, outputs=(PRESENT[i],),
             **({"axis": 2} if has_past else {}))  # fmt: skip
    scores = g.op("MatMul", q, g.op("Transpose", PRESENT[0], perm=[0, 1, 3, 2]))
    scores = g.op("Where", _visible(g, flaws, places, past_len, total), scores, g.const(np.float32(-1e9)))
    mixed = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), PRESENT[1]), perm=[0, 2, 1, 3])
    mixed = g.op("Reshape", mixed, g.const(np.array([0, 0, HIDDEN])))
    g.op("MatMul", g.op("Add", x, mixed), g.weight("head", HIDDEN, VOCAB), outputs=("logits",))
    return _model(g, flaws, has_past)


def _heads(g: _Graph, x: str) -> str:
    return g.op("Transpose", g.op("Reshape", x, g.const(np.array([0, 0, HEADS, DIM]))), perm=[0, 2, 1, 3])


def _visible(g: _Graph, flaws: Flaws, places: str, past_len: str, total: str) -> str:
    """[B, 1, S, T] bool"""
    keys = g.op("Range", g.int(0), total, g.int(1))
    is_past = g.op(
        "LessOrEqual",
        g.op("Unsqueeze", keys, g.const(np.array([0]))),
        g.op("Unsqueeze", places, g.const(np.array([1]))),
    )
    if flaws.sees_ahead:
        is_past = g.op("Or", is_past, g.op("Greater", past_len, g.int(0)))
    mask = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.BOOL), g.const(np.array([1, 2])))
    return g.op("And", mask, is_past)


class _Graph:
    """Collects nodes and initializers; every call returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def const(self, value: Any, name: str = "") -> str:
        name = name or f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def int(self, value: int) -> str:
        return self.const(np.array(value, np.int64))

    def weight(self, name: str, *shape: int) -> str:
        rng = np.random.default_rng(sum(map(ord, name)))
        return self.const(rng.normal(0, 0.5, shape).astype(np.float32), name)

    def op(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: Any) -> str:
        names = outputs or (f"{kind}_{len(self.nodes)}",)
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def ops(self, kind: str, *inputs: str, outputs: int) -> list[str]:
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names))
        return names


def _model(g: _Graph, flaws: Flaws, has_past: bool) -> Any:
    def integers(name: str, columns: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", columns])

    def cache(name: str, length: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", HEADS, length, DIM])

    inputs = [integers("input_ids", "sequence"), integers("attention_mask", "total")]
    inputs += [] if flaws.counts_padding else [integers("position_ids", "sequence")]
    inputs += [cache(name, "past") for name in PAST] if has_past else []
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCAB])
    outputs = [logits, *(cache(name, "total") for name in PRESENT)]
    graph = helper.make_graph(g.nodes, "toy", inputs, outputs, g.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
