"""ESM-1b and ESM-2 (Lin et al., Science 2023): RoBERTa of proteins with norms in front of attention and MLP, rotary
positions or learned ones, and embeddings that make up for tokens that are masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.bert import bert_names, bert_places
from edgellm_export.architectures.encoder import read_config
from edgellm_export.architectures.pre_norm import PreNormEncoder
from edgellm_export.architectures.roberta import MASKED, TEXT
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.encoder_attention import Scores
from edgellm_export.blocks.rope import StaticRope
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor

SEEN = 1 - 0.15 * 0.8  # the share of tokens that training left
FREQUENCIES = "esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq", "esm.rotary_embeddings.inv_freq"
UNUSED = ("*rotary_embeddings.inv_freq", "esm.contact_head.*")


def parse(config: ConfigReader) -> Esm:
    config.must_be("is_folding_model", False)
    kind = config.choice("position_embedding_type", ["absolute", "rotary"])
    rotary, pad = kind == "rotary", config.integer("pad_token_id", minimum=0)
    sizes = read_config(
        replace(config, data={**config.data, "hidden_act": "gelu"}),
        first_position=0 if rotary else pad + 1, has_types=False, kind_of_positions=kind,
    )  # fmt: skip
    names, usual, layer = bert_names("esm.", MASKED), bert_places("esm."), "esm.encoder.layer.{}"
    norms = {"attention_norm": f"{layer}.attention.LayerNorm", "output_norm": f"{layer}.LayerNorm"}
    places = replace(
        usual,
        positions="" if rotary else usual.positions,
        embedding_norm="esm.embeddings.layer_norm" if config.flag("emb_layer_norm_before") else "",
        layer=replace(usual.layer, **norms),
    )
    positions = (f"{usual.positions}.weight",) if rotary else ()
    return Esm(
        sizes, replace(names, unused=(*names.unused, *UNUSED, *positions)), places, MASKED, TEXT, pad,
        final="esm.encoder.emb_layer_norm_after",
        rope=_rope(config, sizes.hidden_size // sizes.num_heads) if rotary else None,
        mask=config.integer("mask_token_id", minimum=0) if config.flag("token_dropout") else None,
    )  # fmt: skip


def _rope(config: ConfigReader, head_dim: int) -> StaticRope:
    config.require(head_dim % 2 == 0, f"a head has {head_dim} channels, expected pairs")
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return StaticRope(np.asarray(1 / np.float32(config.number("rope_theta")) ** exponents, np.float32))


@dataclass(frozen=True)
class Esm(PreNormEncoder):
    """`mask`: the token that stands for others, where embeddings make up for it."""

    rope: StaticRope | None = None
    mask: int | None = None

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        """With the frequencies of the checkpoint, which may be rounded, as transformers takes them."""
        found, size = super().fitted(tensors), self.config.hidden_size // self.config.num_heads // 2
        stored = next((tensors[name] for name in FREQUENCIES if name in tensors), None)
        if self.rope is None or stored is None or stored.shape != (size,):
            return found
        return replace(found, rope=StaticRope(np.asarray(stored.rows(0, size), np.float32)))

    @property
    def scores(self) -> Scores:
        return replace(super().scores, rope=self.rope, positions=self.config.positions)

    def words(self, b: Build, ids: ir.Value) -> ir.Value:
        """Masks are zeros, and the others as much larger as fewer of the text's tokens are seen than in training."""
        x, g, place = super().words(b, ids), b.graph, node("esm.embeddings.token_dropout")
        if self.mask is None:
            return x
        assert self.pad is not None
        pad, mask = (g.constant(f"{place}/{i}", np.array(i, np.int64)) for i in (self.pad, self.mask))
        unlike = [
            g.op("Not", g.op("Equal", ids, other, name=f"{place}/{name}/Equal"), name=f"{place}/{name}/Not")
            for name, other in (("pad", pad), ("mask", mask))
        ]
        tokens, shown = (
            g.op("Cast", each, to=int(b.activation_type), name=f"{place}/{name}/Cast")
            for name, each in zip(("pad", "mask"), unlike, strict=True)
        )
        seen = g.op("Mul", tokens, shown, name=f"{place}/Seen")
        counts = [g.op("ReduceSum", each, g.ints(1), name=f"{place}/{i}/Sum") for i, each in enumerate((tokens, seen))]
        share = g.op("Div", *counts, name=f"{place}/Div")
        factor = g.op("Mul", share, g.constant(f"{place}/seen", np.array(SEEN, b.activation)), name=f"{place}/Share")
        each = g.op("Unsqueeze", g.op("Mul", shown, factor, name=f"{place}/Mul"), g.ints(2), name=f"{place}/Unsqueeze")
        return g.op("Mul", x, each, name=f"{place}/Scale")
