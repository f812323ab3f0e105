"""An encoder-only graph, whole or in segments, from the pieces a family adds. The contract is in docs/design.md.

Inputs: input_ids [B, S] int64, attention_mask [B, S] int64 (ones, then zeros: rows are padded on the right), and
token_type_ids [B, S] int64 where the family has them.
Outputs: logits, float32 (see EncoderFamily.head); for question-answering start_logits and end_logits [B, S]; for
feature-extraction last_hidden_state [B, S, hidden] and, of sentence encoders, sentence_embedding [B, hidden], and what
BGE-M3 has for each token: sparse_weights [B, S], colbert_vectors [B, S, width].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import onnx_ir as ir

from edgellm.package.manifest import Pooling, Task
from edgellm.package.sentence_steps import TOKEN_HEADS, Activation, DenseStep
from edgellm_export.architectures.contract import EncoderFamily, HeadKind, SourceMask
from edgellm_export.blocks.build import Build, DecoderShape, Material, Stream, built, node
from edgellm_export.blocks.layers import linear
from edgellm_export.blocks.norms import unscaled
from edgellm_export.blocks.pooling import side_by_side
from edgellm_export.graphs.parts import FLOAT, INT32, INT64, Output, embedding_segment, hidden_input, layer_segment
from edgellm_export.onnx.builder import MICROSOFT, BuiltGraph

ROWS: list[int | str] = ["batch_size", "sequence_length"]
DENSE_ACTIVATIONS: Mapping[Activation, tuple[str, str, dict[str, Any]]] = {
    "Tanh": ("Tanh", "", {}),
    "ReLU": ("Relu", "", {}),
    "Sigmoid": ("Sigmoid", "", {}),
    "GELU": ("Gelu", MICROSOFT, {}),
}


@dataclass(frozen=True)
class HeadedEncoder:
    """A family, what its head is for, and how many labels that has. `poolings`, and `dense` behind them: of
    sentence encoders, as are `token_heads`, the outputs for each token with their widths."""

    family: EncoderFamily
    task: Task
    labels: int = 0
    poolings: Sequence[Pooling] = ()
    dense: Sequence[DenseStep] = ()
    token_heads: Mapping[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        types = ("token_type_ids",) if self.family.config.types else ()
        return ("input_ids", "attention_mask", *types)

    @property
    def outputs(self) -> tuple[str, ...]:
        if self.task == "feature-extraction":
            return ("last_hidden_state", *(("sentence_embedding", *self.token_heads) if self.poolings else ()))
        return ("start_logits", "end_logits") if self.task == "question-answering" else ("logits",)

    @property
    def shape(self) -> DecoderShape:
        c = self.family.config
        head_dim, tied = c.hidden_size // c.num_heads, c.tied_embedding and self.task == "fill-mask"
        return DecoderShape(c.vocab_size, c.hidden_size, c.num_layers, c.num_heads, head_dim, c.context_length, tied)


def build_encoder(model: HeadedEncoder, material: Material, *, attentions: bool = False) -> BuiltGraph:
    """The whole model. `attentions`: with the outputs attentions.{i} [B, heads, S, S], for rows without padding."""
    b = material.build(model.shape, "encoder", attentions=attentions)
    ids, attention_mask, types = _inputs(b, model)
    x = model.family.embed(b, ids, types)
    mask = _mask(b, attention_mask)
    for i in range(model.family.config.num_layers):
        x = model.family.layer(b, i, x, mask)
    return built(b, _head(b, model, model.family.final_norm(b, x), attention_mask))


def build_embedding(model: HeadedEncoder, material: Material) -> BuiltGraph:
    """input_ids, token_type_ids -> hidden_out [B, S, hidden]."""

    def inputs(b: Build) -> tuple[ir.Value, ir.Value | None]:
        ids, _, types = _inputs(b, model)
        return ids, types

    def embed(b: Build, ids: ir.Value, types: ir.Value | None) -> Stream:
        return Stream(model.family.embed(b, ids, types))

    return embedding_segment(material, model.shape, inputs, embed)


def build_layer(model: HeadedEncoder, index: int, material: Material, *, observe: bool = False) -> BuiltGraph:
    """hidden, attention_mask -> see `layer_segment`."""
    b = material.build(model.shape, f"layer_{index}")
    mask = _mask(b, b.graph.input("attention_mask", INT64, ROWS))
    x = model.family.layer(b, index, _as_made(b, model, index, hidden_input(b)), mask)
    return layer_segment(b, Stream(unscaled(b, x)), observe=observe)


def build_head(model: HeadedEncoder, material: Material) -> BuiltGraph:
    """hidden, attention_mask -> the model's outputs."""
    b = material.build(model.shape, "head")
    attention_mask = b.graph.input("attention_mask", INT64, ROWS)
    hidden = b.graph.op("Identity", hidden_input(b), name="/hidden/Identity")
    return built(b, _head(b, model, model.family.final_norm(b, hidden), attention_mask))


def _inputs(b: Build, model: HeadedEncoder) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    ids, mask, *types = (b.graph.input(name, INT64, ROWS) for name in model.inputs)
    return ids, mask, types[0] if types else None


def _mask(b: Build, attention_mask: ir.Value) -> SourceMask:
    return SourceMask(b.graph.op("Cast", attention_mask, to=int(INT32), name="/mask/Cast"))


def _as_made(b: Build, model: HeadedEncoder, index: int, hidden: ir.Value) -> ir.Value:
    """What layer `index` reads, as the norm before it makes it in the whole model."""
    origin = model.family.made_by(index)
    if origin is None:
        return hidden
    scale = b.channels.scales.get(origin)
    if scale is not None:
        hidden = b.graph.op("Div", hidden, b.graph.array(f"{origin}.scale", scale), name="/hidden/Div")
    return b.channels.made(hidden, origin)


def _head(b: Build, model: HeadedEncoder, x: ir.Value, attention_mask: ir.Value) -> list[Output]:
    family, hidden = model.family, model.family.config.hidden_size
    match model.task:
        case "feature-extraction":
            states: list[Output] = [(x, "last_hidden_state", FLOAT, [*ROWS, hidden])]
            if not model.poolings:
                return states
            vector, width = side_by_side(b, x, attention_mask, model.poolings), hidden * len(model.poolings)
            for step in model.dense:
                vector, width = _dense(b, vector, step), step.outputs
            states.append((vector, "sentence_embedding", FLOAT, ["batch_size", width]))
            return states + [_token_head(b, x, name, hidden, width) for name, width in model.token_heads.items()]
        case "question-answering":
            both = family.head(b, x, "question-answering", 2, attention_mask)
            sides = b.graph.ops("Split", both, axis=-1, num_outputs=2, outputs=2, name="/answer/Split")
            names = ("start_logits", "end_logits")
            squeezed = [
                b.graph.op("Squeeze", side, b.graph.ints(-1), name=f"/answer/{name}/Squeeze")
                for side, name in zip(sides, names, strict=True)
            ]
            return [(value, name, FLOAT, ROWS) for value, name in zip(squeezed, names, strict=True)]
        case "text-classification":
            return [
                (
                    family.head(b, x, model.task, model.labels, attention_mask),
                    "logits",
                    FLOAT,
                    ["batch_size", model.labels],
                )
            ]
        case _:
            count = model.labels or family.config.vocab_size
            logits = family.head(b, x, cast(HeadKind, model.task), model.labels, attention_mask)
            return [(logits, "logits", FLOAT, [*ROWS, count])]


def _token_head(b: Build, x: ir.Value, name: str, hidden: int, width: int) -> Output:
    """Of x [B, S, hidden]: sparse_weights [B, S], how much each token matters, or colbert_vectors [B, S, width]."""
    found, place = linear(b, x, TOKEN_HEADS[name], width, hidden, bias=True), f"/{name}"
    if name != "sparse_weights":
        return found, name, FLOAT, [*ROWS, width]
    weights = b.graph.op("Relu", found, name=f"{place}/Relu")
    return b.graph.op("Squeeze", weights, b.graph.ints(-1), name=f"{place}/Squeeze"), name, FLOAT, ROWS


def _dense(b: Build, vector: ir.Value, step: DenseStep) -> ir.Value:
    """[B, inputs] to [B, outputs]."""
    name = f"{step.path}.linear"
    found = linear(b, vector, name, step.outputs, step.inputs, bias=step.bias)
    if step.activation == "Identity":
        return found
    op_type, domain, attributes = DENSE_ACTIVATIONS[step.activation]
    return b.graph.op(op_type, found, name=f"{node(name)}/{op_type}", domain=domain, **attributes)


def head_patterns(model: HeadedEncoder) -> Sequence[str]:
    """Tensors of the heads that this model does not use, and so leaves alone."""
    kinds: list[HeadKind] = ["fill-mask", "text-classification", "token-classification", "question-answering"]
    every = {name for kind in kinds for name in model.family.head_patterns(kind)}
    used = {name for kind in kinds if kind == model.task for name in model.family.head_patterns(kind)}
    return sorted((every | {f"{model.family.names.prefix}pooler.*"}) - used)
