"""DeBERTa-v2 and v3 (He et al., arXiv 2006.03654 and 2111.09543): attention to contents and to distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.bert import MASKED, bert_names
from edgellm_export.architectures.contract import LayerNames, SourceMask
from edgellm_export.architectures.encoder import (
    CLASSIFIER,
    EncoderNames,
    MaskedHead,
    PostNormEncoder,
    TextHead,
    read_config,
)
from edgellm_export.architectures.post_norm import after_attention
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.disentangled import Distances, Vectors, distance_bias, distances
from edgellm_export.blocks.encoder_attention import Scores, Sides, apart, attended, projected
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor

PREFIX = "deberta."
HEADS = ("cls.predictions.*", "lm_predictions.*", "mask_predictions.*")
NEWER = MaskedHead(
    dense="lm_predictions.lm_head.dense", norm="lm_predictions.lm_head.LayerNorm",
    decoder="lm_predictions.lm_head.decoder", bias="lm_predictions.lm_head.bias", patterns=HEADS,
)  # fmt: skip
LAYER = LayerNames.below(
    f"{PREFIX}encoder.layer.{{}}",
    query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj",
    out="attention.output.dense", attention_norm="attention.output.LayerNorm",
    up="intermediate.dense", down="output.dense", output_norm="output.LayerNorm",
)  # fmt: skip
KINDS = QUERIES, KEYS = ("c2p", "p2c")  # what meets distances


@dataclass(frozen=True)
class Relative:
    """`kinds`: of what meets distances. `shared`: the vectors of distances go through the layers that make keys and
    queries of tokens. `normed`: before that, through a norm."""

    kinds: Sequence[str]
    where: Distances
    shared: bool = False
    normed: bool = False


@dataclass(frozen=True)
class Deberta(PostNormEncoder):
    """`scale`: of products of queries and keys."""

    scale: float = 1.0
    relative: Relative | None = None

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        c, names = self.config, self.layer_names(index)
        sides = self.sides(b, names)
        query, key, value = projected(b, x, sides)
        bias, relative = None, self.relative
        if relative is not None:
            found = [self._vectors(b, names, sides, kind) if kind in relative.kinds else None for kind in KINDS]
            place = node(names.query.rpartition(".")[0])
            bias = distance_bias(b, (query, key), found, relative.where, c.num_heads, place)
        y = attended(b, (query, key, value), sides, mask.keys, Scores(c.num_heads, self.scale, bias))
        y = blocks.linear(b, y, names.out, c.hidden_size, c.hidden_size, bias=True)
        return after_attention(b, c, names, x, y)

    def sides(self, b: Build, names: LayerNames) -> Sides:
        return apart(b, (names.query, names.key, names.value), self.config.hidden_size, self.config.hidden_size)

    def distance_layer(self, b: Build, names: LayerNames, sides: Sides, kind: str) -> tuple[LazyTensor, FloatArray]:
        """What makes vectors for queries, or for keys, to meet of those of distances: a matrix and a bias."""
        assert self.relative is not None
        if not self.relative.shared:
            made = {QUERIES: "pos_key_proj", KEYS: "pos_query_proj"}[kind]
            sides = apart(b, [f"{names.query.rpartition('.')[0]}.{made}"], *sides.weights[0].shape)
            return sides.weights[0], sides.vector(0)
        side = 1 if kind == QUERIES else 0
        return sides.weights[side], sides.vector(side)

    def _vectors(self, b: Build, names: LayerNames, sides: Sides, kind: str) -> Vectors:
        assert self.relative is not None
        c, place, shape = self.config, f"{PREFIX}encoder", (self.relative.where.rows, self.config.hidden_size)
        table = b.tensors.take(f"{place}.rel_embeddings.weight", shape)
        norm = [b.vector(f"{place}.LayerNorm.{part}", shape[1]) for part in ("weight", "bias") if self.relative.normed]
        weight, bias = self.distance_layer(b, names, sides, kind)

        def rows() -> FloatArray:
            found = table.rows(0, shape[0])
            if norm:
                found = _normed(found, c.eps) * norm[0] + norm[1]
            return np.asarray((found @ weight.rows(0, shape[1]).T + bias) * np.float32(self.scale), np.float32)

        return Vectors(f"{names.query.rpartition('.')[0]}.{kind}", rows)


def _normed(x: FloatArray, eps: float) -> FloatArray:
    away = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(away / np.sqrt(np.square(away).mean(axis=-1, keepdims=True) + np.float32(eps)), np.float32)


def parse(config: ConfigReader) -> Deberta:
    config.must_be("conv_kernel_size", 0)
    found = read_deberta(config)
    if found.relative is None:
        return found
    norms = [name.strip() for name in str(config.data.get("norm_rel_ebd", "none")).lower().split("|")]
    relative = replace(found.relative, shared=config.flag("share_att_key"), normed="layer_norm" in norms)
    return replace(found, relative=relative)


def read_deberta(config: ConfigReader) -> Deberta:
    """What v1 and v2 have in common."""
    types = config.integer("type_vocab_size", minimum=0)
    sizes = read_config(config, has_types=types > 0)
    for key, usual in (
        ("embedding_size", sizes.hidden_size), ("pooler_hidden_size", sizes.hidden_size), ("talking_head", False),
        ("attention_head_size", sizes.hidden_size // sizes.num_heads),
    ):  # fmt: skip
        config.must_be(key, usual)
    masked = replace(MASKED, patterns=HEADS) if config.flag("legacy") else NEWER
    sizes = sizes if config.flag("legacy") else replace(sizes, tied_embedding=True)
    act = config.choice("pooler_hidden_act", ["tanh", *blocks.ACTIVATIONS])
    text = TextHead("pooler", "pooler.dense", act, ("pooler.*", f"{CLASSIFIER}.*"))
    kinds = _kinds(config)
    scale = float(1 / np.sqrt(np.float32(sizes.hidden_size // sizes.num_heads) * (1 + len(kinds))))
    relative = _relative(config, kinds, sizes.positions) if config.flag("relative_attention") else None
    places = EncoderNames(
        positions=f"{PREFIX}embeddings.position_embeddings" if config.flag("position_biased_input") else "",
        types=f"{PREFIX}embeddings.token_type_embeddings",
        embedding_norm=f"{PREFIX}embeddings.LayerNorm",
        projection="",
        layer=LAYER,
    )
    names = bert_names(PREFIX, masked)
    unused = (*names.unused, *(() if places.positions else ("*position_embeddings.weight",)))
    return Deberta(sizes, replace(names, unused=unused), places, masked, text, None, scale, relative)


def _kinds(config: ConfigReader) -> Sequence[str]:
    given = config.data.get("pos_att_type") or []
    kinds = [kind.strip() for kind in given.lower().split("|")] if isinstance(given, str) else given
    known = isinstance(kinds, list) and all(kind in KINDS for kind in kinds) and len(set(kinds)) == len(kinds)
    config.require(known, f"pos_att_type is {given!r}, expected some of {', '.join(KINDS)}")
    return tuple(kinds) if known else ()


def _relative(config: ConfigReader, kinds: Sequence[str], positions: int) -> Relative:
    """Of so many `positions`: a text has no more tokens, so that none is further away."""
    given = config.integer("max_relative_positions", -1, minimum=-1)
    furthest = given if given > 0 else positions
    buckets = config.integer("position_buckets", -1, minimum=-1)
    return Relative(kinds, distances(positions, buckets if buckets > 0 else furthest, buckets, furthest))
