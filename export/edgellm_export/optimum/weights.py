"""Weights of an ONNX graph that another tool made, stored in edgellm's ways: nodes are replaced one by one.

What multiplies by a constant matrix becomes MatMulNBits, what looks up `input_ids` in a table GatherBlockQuantized,
inside the branches of a merged decoder too. Everything else stays as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm.package.manifest import Precision
from edgellm.types import FloatArray, ProgressHook
from edgellm_export.onnx.builder import MICROSOFT, SMALL_BYTES
from edgellm_export.onnx.writer import ALIGNMENT
from edgellm_export.package.output import disk_errors
from edgellm_export.quantize import IntegerScheme, scheme_for
from edgellm_export.quantize.formats import BlockFormat
from edgellm_export.quantize.grid import nearest

SAME_IDS = ("Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten")  # still the tokens, in another shape


def store_weights(model: ir.Model, precision: Precision, progress: ProgressHook) -> str:
    """Change `model` in place. Returns the name of the scheme."""
    _join_constants(model.graph)
    scheme = scheme_for(precision, "cpu")
    if isinstance(scheme, IntegerScheme):
        _Rounding(model, scheme).run(progress)
    elif precision == "fp16":
        _store_as_float16(model)
    return scheme.name


def _join_constants(graph: ir.Graph) -> None:
    """Without the Identity nodes of those that torch's exporter found to be the same. Others stay: the pass that takes
    them all out fails where a branch gives what is outside of it (DeBERTa)."""
    for node in [node for node in graph if node.op_type == "Identity"]:
        value, copy = node.inputs[0], node.outputs[0]
        if value is not None and value.is_initializer() and not copy.is_graph_output():
            copy.replace_all_uses_with(value)
            graph.remove(node, safe=True)


def save(model: ir.Model, path: Path) -> None:
    """Write `path` and, for what is not small, `path`.data. Constants of the same bytes share them."""
    data = path.with_name(path.name + ".data")
    offsets: dict[bytes, int] = {}
    with disk_errors(path.parent), data.open("wb") as file:
        for value in _constants(model):
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes <= SMALL_BYTES or tensor.dtype == ir.DataType.STRING:
                continue
            content = tensor.tobytes()
            digest = hashlib.sha256(content).digest()
            if digest not in offsets:
                offsets[digest] = file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT)
                file.write(content)
            value.const_value = ir.ExternalTensor(
                data.name, offsets[digest], len(content), tensor.dtype, shape=ir.Shape(tensor.shape.numpy()),
                name=str(value.name), base_dir=path.parent,
            )  # fmt: skip
    with disk_errors(path.parent):
        ir.save(model, path)
        if not offsets:
            os.remove(data)


@dataclass
class _Rounding:
    """Replaces nodes of `model`. `stored`: by the bytes of a matrix and its format, what stands for it."""

    model: ir.Model
    scheme: IntegerScheme
    stored: dict[tuple[bytes, BlockFormat], tuple[ir.Value, ...]] = field(default_factory=dict)

    def run(self, progress: ProgressHook) -> None:
        self.model.graph.opset_imports[MICROSOFT] = 1
        nodes = list(ir.traversal.RecursiveGraphIterator(self.model.graph))
        tables = [node for node in nodes if _is_lookup(node)]
        vocabularies = {len(_array(node.inputs[0])) for node in tables}
        for node in tables:
            self._replace_lookup(node)
        matrices = [(node, rows) for node in nodes if (rows := _matrix(node)) is not None]
        for done, (node, rows) in enumerate(matrices):
            array = rows()
            outer = len(array) in vocabularies  # the head: the last layer to touch a token deserves more bits
            self._replace_product(node, array, self.scheme.outer if outer else self.scheme.inner)
            progress(done + 1, len(matrices))
        _drop_unused(self.model)

    def _replace_lookup(self, node: ir.Node) -> None:
        form, array = self.scheme.outer, _array(node.inputs[0])
        quants, scales = self._stored(array, form)
        flat = self._constant(f"{quants.name}.rows", quants.const_value.numpy().reshape(len(array), -1))  # type: ignore[union-attr]
        attributes = {"bits": form.bits, "block_size": form.block_size, "gather_axis": 0, "quantize_axis": 1}
        new = ir.node(
            "GatherBlockQuantized", [flat, node.inputs[1], scales], attributes, domain=MICROSOFT, name=node.name
        )
        if array.shape[1] % form.block_size == 0:
            _replace(node, [new])
            return
        ints = [self._constant(f"/constants/ints/{i}", np.array([i], np.int64)) for i in (0, array.shape[1], -1)]
        _replace(node, [new, ir.node("Slice", [new.outputs[0], *ints], name=f"{node.name}/Slice")])

    def _replace_product(self, node: ir.Node, rows: FloatArray, form: BlockFormat) -> None:
        quants, scales, zero_points = (*self._stored(rows, form), None)[:3]
        inputs: list[ir.Value | None] = [node.inputs[0], quants, scales, zero_points, None, (*node.inputs, None)[2]]
        while inputs[-1] is None:
            inputs.pop()
        attributes = {"K": rows.shape[1], "N": len(rows), "bits": form.bits, "block_size": form.block_size}
        # Level 4 rounds activations to int8, a scale per token and block: a token's result does not depend on others.
        attributes["accuracy_level"] = 4
        _replace(node, [ir.node("MatMulNBits", inputs, attributes, domain=MICROSOFT, name=node.name)])

    def _stored(self, rows: FloatArray, form: BlockFormat) -> tuple[ir.Value, ...]:
        """The constants of a matrix [outputs, inputs]; those of a tied one are there already."""
        key = hashlib.sha256(np.ascontiguousarray(rows).data).digest(), form
        if key not in self.stored:
            names = [region.name for region in form.regions(f"/weights/{len(self.stored)}", *rows.shape)]
            arrays = form.arrays(nearest(rows, form.grid))
            self.stored[key] = tuple(self._constant(n, a) for n, a in zip(names, arrays, strict=True))
        return self.stored[key]

    def _constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        known = self.model.graph.initializers.get(name)
        if known is not None:
            return known
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.model.graph.register_initializer(value)
        return value


def _store_as_float16(model: ir.Model) -> None:
    """Matrices and tables as float16 with an explicit Cast, which is folded when the package is loaded."""
    graph = model.graph
    for value in list(_constants(model)):
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype != ir.DataType.FLOAT or tensor.nbytes <= SMALL_BYTES or len(tensor.shape) < 2:
            continue
        owner = value.graph or graph
        name = f"{value.name}.float16"
        stored = ir.val(name, const_value=ir.tensor(tensor.numpy().astype(np.float16), name=name))
        cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)}, name=f"{value.name}/Cast")
        assert isinstance(owner, ir.Graph)
        owner.register_initializer(stored)
        owner.insert_before(owner[0], cast)
        value.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
        cast.outputs[0].shape, cast.outputs[0].type = stored.shape, ir.TensorType(ir.DataType.FLOAT)
    _drop_unused(model)


def _is_lookup(node: ir.Node) -> bool:
    """Whether `node` reads rows of a constant table of floats by tokens."""
    return (
        node.op_type == "Gather"
        and node.attributes.get_int("axis", 0) == 0
        and _is_matrix(node.inputs[0])
        and _are_tokens(node.inputs[1])
    )


def _are_tokens(value: ir.Value | None) -> bool:
    while value is not None and (producer := value.producer()) is not None and producer.op_type in SAME_IDS:
        value = producer.inputs[0]
    return value is not None and value.is_graph_input() and str(value.name).endswith("input_ids")


def _matrix(node: ir.Node) -> Callable[[], FloatArray] | None:
    """A function that gives the rows [outputs, inputs] of the constant that `node` multiplies by; None for others."""
    if len(node.inputs) < 2 or not _is_matrix(weight := node.inputs[1]):
        return None
    if node.op_type == "MatMul":
        return lambda: np.ascontiguousarray(_array(weight).T)
    numbers = {name: node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
    flipped = {name: node.attributes.get_int(name, 0) == 1 for name in ("transA", "transB")}
    if node.op_type != "Gemm" or flipped["transA"] or set(numbers.values()) != {1.0}:
        return None
    if len(node.inputs) > 2 and not _is_vector(node.inputs[2]):
        return None
    if flipped["transB"]:
        return lambda: _array(weight)
    return lambda: np.ascontiguousarray(_array(weight).T)


def _is_matrix(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 2 and tensor.size > 0


def _is_vector(value: ir.Value | None) -> bool:
    return value is None or (value.const_value is not None and len(value.const_value.shape) == 1)


def _array(value: ir.Value | None) -> FloatArray:
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def _replace(old: ir.Node, new: list[ir.Node]) -> None:
    """Put the nodes `new` in the place of `old`; the last one's output is what `old` gave."""
    graph, before, after = old.graph, old.outputs[0], new[-1].outputs[0]
    assert isinstance(graph, ir.Graph)
    after.shape, after.type = before.shape, before.type
    name, before.name = before.name, f"{before.name}.replaced"
    graph.insert_before(old, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    after.name = name


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    """The initializers of the graph and of the graphs inside it, each once."""
    yield from list(model.graph.initializers.values())
    for graph in model.graph.subgraphs():
        yield from list(graph.initializers.values())


def _drop_unused(model: ir.Model) -> None:
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del graph.initializers[name]
