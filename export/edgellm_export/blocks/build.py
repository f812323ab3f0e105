"""The values that blocks and architectures pass to each other while a graph is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from edgellm.package.manifest import ATTENTIONS, CROSS_ATTENTIONS, StateLayout
from edgellm.types import FloatArray
from edgellm_export.blocks.channels import Channels, ChannelScales
from edgellm_export.blocks.rope import Rope
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.onnx.builder import Apart, BuiltGraph, GraphBuilder, as_model
from edgellm_export.quantize import WeightScheme


@dataclass(frozen=True)
class DecoderShape:
    """What the package must know of a decoder, whatever its family. Sizes in elements, lengths in tokens.

    `learned_positions`: the embedding, or what is between rotation and attention, needs position ids.
    `conv_layers`: those with a short convolution in the place of attention: of `hidden_size` channels, over
    `conv_kernel` tokens.
    `states`: of the layers with a state space in its place.
    `recompute_beyond`: see edgellm.package.manifest.Rope. `values_are_keys`, `shared`: see CacheLayout.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    tied_embedding: bool
    ropes: Sequence[Rope] = ()
    learned_positions: bool = False
    recompute_beyond: int | None = None
    conv_layers: tuple[int, ...] = ()
    conv_kernel: int = 0
    values_are_keys: bool = False
    shared: tuple[int, ...] = ()
    states: StateLayout | None = None

    @property
    def recurrent_layers(self) -> tuple[int, ...]:
        """Those without keys and values."""
        return self.conv_layers if self.states is None else self.states.layers

    @property
    def num_attention_layers(self) -> int:
        return self.num_layers - len(self.recurrent_layers)


class TensorSource(Protocol):
    """Hands out the checkpoint's tensors by name and checks their shapes."""

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor: ...


@dataclass(frozen=True)
class Material:
    """What the matrices of graphs are made of: a checkpoint's tensors, their channels scaled, stored in the
    scheme's way. `cache`: what each layer's int8 key/value cache is multiplied by, None for one without keys and
    values; none at all for a cache of the activations' type. `apart`: experts get graphs of their own."""

    tensors: TensorSource
    scheme: WeightScheme
    scales: ChannelScales = field(default_factory=dict)
    cache: Sequence[CacheScales | None] = ()
    apart: bool = False

    def build(self, shape: DecoderShape, name: str, *, attentions: bool = False) -> Build:
        """A graph to be. `attentions`: with what attention gives each token."""
        return Build(
            shape=shape,
            graph=GraphBuilder(name),
            scheme=self.scheme,
            tensors=self.tensors,
            channels=Channels(self.scales),
            attentions=[] if attentions else None,
            cross_attentions=[] if attentions else None,
            apart=[] if self.apart else None,
        )


@dataclass(frozen=True)
class Build:
    """What every block needs: the graph under construction, the weights' scheme, the checkpoint.

    `attentions`, `cross_attentions`: where attention puts its weights [B, heads, S, T], layer by layer; None where
    nobody wants them. `apart`: where mixtures put their experts; None where these are in the graph.
    `outputs`: further ones, (value, name, dtype, shape). `cross_queries`: what each layer of a decoder looks for in its
    source, [R, S, N * head_dim].
    """

    shape: DecoderShape
    graph: GraphBuilder
    scheme: WeightScheme
    tensors: TensorSource
    channels: Channels
    attentions: list[ir.Value] | None = None
    cross_attentions: list[ir.Value] | None = None
    apart: list[Apart] | None = None
    outputs: list[Any] = field(default_factory=list)
    cross_queries: list[ir.Value] = field(default_factory=list)

    @property
    def activation(self) -> np.dtype[Any]:
        return self.scheme.activation

    @property
    def activation_type(self) -> ir.DataType:
        return ir.DataType.from_numpy(self.activation)

    def vector(self, name: str, size: int) -> FloatArray:
        """A small tensor of the checkpoint, read now. [size] float32."""
        return self.tensors.take(name, (size,)).rows(0, size)

    def project(
        self,
        x: ir.Value,
        weight: LazyTensor,
        bias: FloatArray | None,
        name: str,
        *,
        outer: bool = False,
        share: float = 1.0,
    ) -> ir.Value:
        """x @ weight.T + bias as a node at `name`, in the scheme's way. `outer`: see FloatScheme.linear. `share`: see
        Projection."""
        place = node(name)
        matrix = self.channels.read(x, weight, place, outer=outer, share=share)
        return self.scheme.linear(self.graph, x, matrix, bias, place, outer=outer)


def built(b: Build, outputs: Sequence[Any]) -> BuiltGraph:
    """The graph with these outputs: (value, name, dtype, shape), and with attention weights if they were kept."""
    model = as_model(b.graph.finish([*outputs, *b.outputs, *_attention_outputs(b)]))
    stored = list(b.graph.stored.values())
    return BuiltGraph(model, stored, b.graph.produced, b.channels.projections, b.apart or ())


def attention_names(layers: int, *, across: bool = False) -> tuple[str, ...]:
    return tuple(f"{CROSS_ATTENTIONS if across else ATTENTIONS}{i}" for i in range(layers))


def _attention_outputs(b: Build) -> list[Any]:
    own, across = b.attentions or [], b.cross_attentions or []
    names = [*attention_names(len(own)), *attention_names(len(across), across=True)]
    shape = ["batch_size", "num_heads", "sequence_length", "total_sequence_length"]
    return [(value, name, ir.DataType.FLOAT, shape) for value, name in zip([*own, *across], names, strict=True)]


@dataclass(frozen=True)
class BatchState:
    """The batch as attention sees it. seqlens: [B] int32, tokens of each row minus one. total: int32 scalar, tokens of
    the longest row. positions: [B, S] int64, only for models that need them. lengths: [B] int64, what length-dependent
    rotary tables follow. both_ways: [B, S] int32, ones for tokens, then zeros, where tokens see those behind them, too,
    and nothing is past."""

    seqlens: ir.Value
    total: ir.Value
    positions: ir.Value | None
    lengths: ir.Value | None
    both_ways: ir.Value | None = None


@dataclass(frozen=True)
class Stream:
    """The residual stream between blocks: `residual` + `delta`. Kept apart so that the addition fuses with the next
    norm. `beside`: what goes along with it for later layers, [B, S, size] each."""

    residual: ir.Value
    delta: ir.Value | None = None
    beside: tuple[ir.Value, ...] = ()


@dataclass(frozen=True)
class CacheScales:
    """What one layer's int8 cache is multiplied by, channel by channel. Each [num_kv_heads, head_dim]."""

    key: FloatArray
    value: FloatArray


@dataclass(frozen=True)
class LayerCache:
    """Past key and value of one layer, [B, num_kv_heads, capacity, head_dim]. int8 where there are `scales`. None where
    nothing is past. `conv`: of a layer with a short convolution, what that read, [B, 1, capacity, hidden_size]. `conv`,
    `ssm`: of a layer with a state space, see StateLayout."""

    key: ir.Value | None = None
    value: ir.Value | None = None
    scales: CacheScales | None = None
    conv: ir.Value | None = None
    ssm: ir.Value | None = None


@dataclass(frozen=True)
class Heads:
    """Attention geometry. `scale` None means 1 / sqrt(head_dim). `window`: tokens a query may see, itself included.
    `neighbours`: how many of a head's first channels the checkpoint has so that neighbours rotate together, and not
    those half of them apart."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float | None = None
    window: int | None = None
    softcap: float = 0.0
    neighbours: int = 0

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim


def node(name: str) -> str:
    """ "model.layers.0.mlp" as a node's place: "/model/layers.0/mlp"."""
    parts: list[str] = []
    for part in name.split("."):
        if part.isdigit() and parts:
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return "/" + "/".join(parts)
