"""BERT and RoBERTa with norms in front of attention and MLP, and one behind the last layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.bert import MASKED as BERT_MASKED
from edgellm_export.architectures.bert import bert_names, bert_places, text_head
from edgellm_export.architectures.contract import SourceMask
from edgellm_export.architectures.encoder import EncoderNames, PostNormEncoder, read_config
from edgellm_export.architectures.post_norm import mlp
from edgellm_export.architectures.roberta import MASKED, TEXT
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.encoder_attention import Scores, apart, self_attention
from edgellm_export.blocks.norms import layer_norm
from edgellm_export.checkpoint.config import ConfigReader


@dataclass(frozen=True)
class PreNormEncoder(PostNormEncoder):
    """`final`: the norm behind the last layer. In a layer's names, `output_norm` is that of the MLP."""

    final: str = ""

    @property
    def adds(self) -> bool:
        return True

    def made_by(self, index: int) -> str | None:
        return None

    @property
    def scores(self) -> Scores:
        return Scores(self.config.num_heads)

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        c, names = self.config, self.layer_names(index)
        y = layer_norm(b, x, names.attention_norm, c.hidden_size, c.eps)
        sides = apart(b, (names.query, names.key, names.value), c.hidden_size, c.hidden_size)
        y = self_attention(b, y, sides, mask.keys, self.scores)
        y = blocks.linear(b, y, names.out, c.hidden_size, c.hidden_size, bias=True)
        x = b.graph.op("Add", y, x, name=f"{node(names.attention_norm)}/Add")
        y = mlp(b, c, names, layer_norm(b, x, names.output_norm, c.hidden_size, c.eps))
        return b.graph.op("Add", y, x, name=f"{node(names.output_norm)}/Add")

    def final_norm(self, b: Build, x: ir.Value) -> ir.Value:
        return layer_norm(b, x, self.final, self.config.hidden_size, self.config.eps, only_linear=False)


def megatron_bert(config: ConfigReader) -> PreNormEncoder:
    places = _places("bert.", "attention.ln", "ln", embedding_norm=False)
    sizes, names = read_config(config), bert_names("bert.")
    return PreNormEncoder(sizes, names, places, BERT_MASKED, text_head("bert."), None, "bert.encoder.ln")


def xlm_roberta_xl(config: ConfigReader) -> PreNormEncoder:
    places = _places("roberta.", "attention.self_attn_layer_norm", "LayerNorm", embedding_norm=False)
    return _roberta(config, "roberta.", places, "roberta.encoder.LayerNorm")


def roberta_prelayernorm(config: ConfigReader) -> PreNormEncoder:
    prefix = "roberta_prelayernorm."
    places = _places(prefix, "attention.LayerNorm", "intermediate.LayerNorm", embedding_norm=True)
    return _roberta(config, prefix, places, f"{prefix}LayerNorm")


def _roberta(config: ConfigReader, prefix: str, places: EncoderNames, final: str) -> PreNormEncoder:
    pad = config.integer("pad_token_id", minimum=0)
    sizes = read_config(config, first_position=pad + 1)
    return PreNormEncoder(sizes, bert_names(prefix, MASKED), places, MASKED, TEXT, pad, final)


def _places(prefix: str, attention_norm: str, output_norm: str, *, embedding_norm: bool) -> EncoderNames:
    usual, layer = bert_places(prefix), f"{prefix}encoder.layer.{{}}"
    names = replace(usual.layer, attention_norm=f"{layer}.{attention_norm}", output_norm=f"{layer}.{output_norm}")
    return replace(usual, layer=names, embedding_norm=usual.embedding_norm if embedding_norm else "")
