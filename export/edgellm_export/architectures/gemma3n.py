"""Gemma 3n (text): several streams of which a layer computes one (AltUp), a narrow second way past attention (Laurel),
inputs of each layer's own from a table of their own, gates of which most are zero, and last layers that read the keys
and values of earlier ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.gemma2 import Gemma, read_gemma
from edgellm_export.architectures.gemma3 import LOCAL, THETAS, WIDE, ropes_by_kind
from edgellm_export.architectures.names import USUAL
from edgellm_export.blocks import altup, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.altup import AltUp
from edgellm_export.blocks.attention import grouped_query
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream, node
from edgellm_export.checkpoint.config import MAX_LAYERS, ConfigReader, is_number
from edgellm_export.checkpoint.tensors import LazyTensor, PickedRows, RowConcat, RowSlice

PATTERN = 5  # every so many layers one sees everything, where config.json does not say which
# As transformers 4.57 saves the text model by itself: it puts this wherever a name has "model".
WHOLE = "model.language_model."
OLDER = {"per_layer_model.language_model_projection.weight": "per_layer_model_projection.weight"}
TABLE = "model.embed_tokens_per_layer"
SPARSE_LAYERS, SPARSITY = 10, 0.95  # the first ones' of more than so many, where config.json does not say
KEYS_AND_VALUES = ("k_proj.*", "v_proj.*", "k_norm.*", "v_norm.*")


@dataclass(frozen=True)
class Gemma3nConfig:
    """`sizes`, `sparsity`: per layer, the rows of its MLP, and the share of its gates that are to be 0. `laurel_rank`:
    channels of the second way. `own_size`: of each layer's own inputs; their table has `own_tokens` rows. `scaled`: the
    corrected stream is, before it is gated by these."""

    altup: AltUp
    sizes: Sequence[int]
    sparsity: Sequence[float]
    laurel_rank: int
    own_size: int
    own_tokens: int
    scaled: bool


def parse(config: ConfigReader) -> Gemma3n:
    layers = config.layers("num_hidden_layers")
    sizes = _per_layer(config, "intermediate_size", layers)
    fixed = {"query_pre_attn_scalar": 1.0, "attn_logit_softcapping": None, "intermediate_size": max(sizes, default=1)}
    gemma = read_gemma(replace(config, data={**config.data, **fixed}))
    ropes = ropes_by_kind(config, THETAS, gemma.heads.head_dim)
    default = [WIDE if (i + 1) % PATTERN == 0 else LOCAL for i in range(layers)]
    windows = config.windows(config.optional_integer("sliding_window"), default)
    kinds = [WIDE if window is None else LOCAL for window in windows]
    shared = _shared(config, kinds)
    scaled = config.flag("altup_correct_scale")
    unused = (*USUAL.unused, *_unused(layers, len(shared)), *(() if scaled else ("*.altup.correct_output_scale",)))
    names = replace(USUAL, others=(f"{TABLE}.weight",), unused=unused, copies={"model.": WHOLE}, older=OLDER)
    return Gemma3n(
        replace(
            gemma,
            windows=windows,
            ropes=[ropes[kind] for kind in kinds],
            shape=replace(gemma.shape, ropes=tuple(ropes.values()), shared=shared),
        ),
        names,
        own=Gemma3nConfig(
            altup=_altup(config, gemma.rms_norm_eps),
            sizes=sizes,
            sparsity=_sparsity(config, layers),
            laurel_rank=config.integer("laurel_rank"),
            own_size=config.integer("hidden_size_per_layer_input"),
            own_tokens=config.integer("vocab_size_per_layer_input"),
            scaled=scaled,
        ),
    )


def _altup(config: ConfigReader, eps: float) -> AltUp:
    inputs = config.integer("altup_num_inputs", minimum=2, maximum=64)
    return AltUp(inputs, config.integer("altup_active_idx", minimum=0, maximum=inputs - 1), eps)


def _per_layer(config: ConfigReader, key: str, layers: int) -> Sequence[int]:
    value = config.data.get(key)
    if not isinstance(value, list):
        return [config.integer(key)] * layers
    known = len(value) == layers and all(type(each) is int and 0 < each < 1 << 31 for each in value)
    config.require(known, f"{key} is {value!r}, expected a whole number, or one for each of {layers} layers")
    return value if known else [1] * layers


def _sparsity(config: ConfigReader, layers: int) -> Sequence[float]:
    key = "activation_sparsity_pattern"
    value = config.data.get(key)
    if value is None:
        sparse = SPARSE_LAYERS if layers > SPARSE_LAYERS else 0
        return [SPARSITY] * sparse + [0.0] * (layers - sparse)
    known = isinstance(value, list) and len(value) == layers and all(is_number(v) and 0 <= v < 1 for v in value)
    config.require(known, f"{key} is {value!r}, expected a share from 0 to below 1 for each of {layers} layers")
    return value if known else [0.0] * layers


def _shared(config: ConfigReader, kinds: Sequence[str]) -> tuple[int, ...]:
    """For each of the last layers, the last one of its kind before all of them."""
    count = config.integer("num_kv_shared_layers", minimum=0, maximum=MAX_LAYERS)
    own = {kind: i for i, kind in enumerate(kinds[: max(len(kinds) - count, 0)])}
    known = own.keys() == {*kinds} if count else True
    config.require(known, f"num_kv_shared_layers is {count} of {len(kinds)}, and a kind has no layer before these")
    return tuple(own[kind] for kind in kinds[len(kinds) - count :]) if count and known else ()


def _unused(layers: int, shared: int) -> Sequence[str]:
    """Keys and values that layers have in the checkpoint, and which are those of other layers."""
    return [f"model.layers.{i}.self_attn.{part}" for i in range(layers - shared, layers) for part in KEYS_AND_VALUES]


@dataclass(frozen=True)
class Gemma3n(Gemma):
    known_to_genai: ClassVar[bool] = False

    own: Gemma3nConfig = field(kw_only=True)

    @property
    def _sources(self) -> Sequence[int]:
        """The layers whose keys and values others read."""
        return sorted({*self.shape.shared})

    def widths(self, index: int) -> Sequence[int]:
        if index == 0:
            return (self.shape.hidden_size, self._all_own)
        known = [self.config.heads.kv_size] * (2 * sum(source < index for source in self._sources))
        return (self.own.altup.inputs * self.shape.hidden_size, self._all_own, *known)

    @property
    def _all_own(self) -> int:
        return self.shape.num_layers * self.own.own_size

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        rows = b.scheme.embedding(b.graph, input_ids, self._table(b), node(TABLE))
        return replace(self.scaled(b, input_ids), beside=(rows,))

    def _table(self, b: Build) -> LazyTensor:
        """With a row for each token: those that it has none for have the first one."""
        count, vocabulary = self.own.own_tokens, self.shape.vocab_size
        table = b.tensors.take(f"{TABLE}.weight", (count, self._all_own))
        if count < vocabulary:
            first = np.broadcast_to(np.int64(0), vocabulary - count)  # of no memory, whatever config.json says
            return RowConcat(table.name, (table, PickedRows("", table, first)))
        return RowSlice(table.name, table, 0, vocabulary) if table.shape[0] > vocabulary else table

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name, up = f"model.layers.{index}", self.own.altup
        if index == 0:
            stream = self._begun(b, stream)
        own, *known = stream.beside
        streams = altup.predict(b, altup.apart(b, stream.residual, up, name), up, f"{name}.altup")
        before = altup.active(b, streams, up, name)
        made, present, new = self._block(b, index, before, cache, batch, known)
        streams = altup.correct(b, streams, before, made, up, f"{name}.altup")
        y = self._own_inputs(b, altup.active(b, streams, up, f"{name}.corrected"), own, index, name)
        streams = altup.add_to_each(b, streams, y, altup.all_but_first(b, up, "model.altup"), f"{name}.rest")
        whole = altup.beside(b, streams, up, name)
        if index == self.shape.num_layers - 1:
            return Stream(altup.contract(b, whole, up, "model.altup_unembed_projections")), present
        return Stream(whole, beside=(own, *known, *(new if index in self._sources else ()))), present

    def _begun(self, b: Build, stream: Stream) -> Stream:
        """Of the embeddings and the rows of all layers' table, the streams and all layers' own inputs."""
        x, (rows,), name = stream.residual, stream.beside, "model.per_layer_model_projection"
        size, hidden = self.own.own_size, self.shape.hidden_size
        g, place = b.graph, node(name)
        streams = altup.expand(b, x, self.own.altup, "model.altup_projections")
        made = blocks.linear(b, x, name, self._all_own, hidden, bias=False)  # whose factor the norm takes away
        split = g.op("Reshape", made, g.ints(0, 0, self.shape.num_layers, size), name=f"{place}/Split")
        norm, half = "model.per_layer_projection_norm", math.sqrt(0.5)
        weight = b.vector(f"{norm}.weight", size) * np.float32(half)
        normed = norms.rms_norm(b, split, weight, self.config.rms_norm_eps * hidden, norm, only_linear=False)
        joined = g.op("Reshape", normed, g.ints(0, 0, self._all_own), name=f"{place}/Join")
        scaled = blocks.scale(b, rows, half * math.sqrt(size), f"{TABLE}.scale")
        return Stream(streams, beside=(g.op("Add", joined, scaled, name=f"{place}/Add"),))

    def _block(
        self, b: Build, index: int, x: ir.Value, cache: LayerCache, batch: BatchState, known: Sequence[ir.Value]
    ) -> tuple[ir.Value, LayerCache, Sequence[ir.Value]]:
        """What a layer makes of the active stream, and the keys and values that it made."""
        name, g = f"model.layers.{index}", b.graph
        normed, _ = self.norm(b, Stream(x), f"{name}.input_layernorm")
        laurel = self._laurel(b, normed, f"{name}.laurel")
        y, present, new = self._attention(b, normed, index, f"{name}.self_attn", cache, batch, known)
        y, _ = self.norm(b, Stream(y), f"{name}.post_attention_layernorm")
        both = g.op(
            "Add", g.op("Add", x, y, name=f"{node(name)}/attention/Add"), laurel, name=f"{node(name)}/laurel/Join"
        )
        x = blocks.scale(b, both, math.sqrt(0.5), f"{name}.laurel.half")
        y, _ = self.norm(b, Stream(x), f"{name}.pre_feedforward_layernorm")
        y, _ = self.norm(b, Stream(self._mlp(b, y, index, f"{name}.mlp")), f"{name}.post_feedforward_layernorm")
        return g.op("Add", x, y, name=f"{node(name)}/mlp/Add"), present, new

    def _weight(self, b: Build, name: str) -> FloatArray:
        """Here norms are stored as they are."""
        return b.vector(f"{name}.weight", self.shape.hidden_size)

    def _laurel(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        hidden, rank = self.shape.hidden_size, self.own.laurel_rank
        y = blocks.linear(b, x, f"{name}.linear_left", rank, hidden, bias=False)
        y = blocks.linear(b, y, f"{name}.linear_right", hidden, rank, bias=False)
        y, _ = self.norm(b, Stream(y), f"{name}.post_laurel_norm")
        return b.graph.op("Add", norms.unscaled(b, x), y, name=f"{node(name)}/Add")

    def _attention(
        self, b: Build, x: ir.Value, index: int, name: str, cache: LayerCache, batch: BatchState,
        known: Sequence[ir.Value],
    ) -> tuple[ir.Value, LayerCache, Sequence[ir.Value]]:  # fmt: skip
        c, shape = self.config, self.shape
        heads = replace(c.heads, window=c.windows[index])
        query, first = self._side(b, x, f"{name}.q", heads.num_heads), shape.num_layers - len(shape.shared)
        if index < first:
            new = [self._side(b, x, f"{name}.{side}", heads.num_kv_heads) for side in "kv"]
        else:
            at = 2 * self._sources.index(shape.shared[index - first])
            new = [*known[at : at + 2]]
        y, present = grouped_query(b, [query, *new], heads, cache, batch, c.ropes[index], shape.context_length, name)
        y = blocks.linear(b, y, f"{name}.o_proj", shape.hidden_size, heads.query_size, bias=c.attention_bias)
        return y, present, new

    def _side(self, b: Build, x: ir.Value, name: str, count: int) -> ir.Value:
        """Queries, keys or values, each head normed; values without a weight."""
        c, size = self.config, self.config.heads.head_dim
        y = blocks.linear(b, x, f"{name}_proj", count * size, self.shape.hidden_size, bias=c.attention_bias)
        weight = np.ones(size, np.float32) if name.endswith(".v") else b.vector(f"{name}_norm.weight", size)
        return norms.per_head_rms_norm(b, y, count, size, weight, c.rms_norm_eps, f"{name}_norm")

    def _mlp(self, b: Build, x: ir.Value, index: int, name: str) -> ir.Value:
        size, share, hidden = self.own.sizes[index], self.own.sparsity[index], self.shape.hidden_size
        y = blocks.gated(
            b, x, name, size, hidden, self.config.hidden_act, bias=False, fused=False,
            deviations=NormalDist().inv_cdf(share) if share else None,
        )  # fmt: skip
        return blocks.linear(b, y, f"{name}.down_proj", hidden, size, bias=False)

    def _own_inputs(self, b: Build, x: ir.Value, own: ir.Value, index: int, name: str) -> ir.Value:
        """What a layer's own inputs add to all streams but the first, gated by its corrected stream x."""
        g, size, hidden, place = b.graph, self.own.own_size, self.shape.hidden_size, node(f"{name}.own_inputs")
        if self.own.scaled:
            made = f"{name}.altup.correct_output_scale"
            vector = b.channels.divided(made, b.vector(made, hidden))
            factors = g.array(made, vector.astype(b.activation))
            x = b.channels.made(g.op("Mul", x, factors, name=f"{place}/Scale"), made)
        gate = blocks.linear(b, x, f"{name}.per_layer_input_gate", size, hidden, bias=False)
        gate = blocks.activate(b, gate, self.config.hidden_act, f"{name}.per_layer_input_gate.act")
        ends = g.ints(index * size), g.ints((index + 1) * size), g.ints(2)
        y = g.op("Mul", gate, g.op("Slice", own, *ends, name=f"{place}/Slice"), name=f"{place}/Mul")
        y = blocks.linear(b, y, f"{name}.per_layer_projection", hidden, size, bias=False)
        return self.norm(b, Stream(y), f"{name}.post_per_layer_input_norm")[0]
