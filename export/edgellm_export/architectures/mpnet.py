"""MPNet (Song et al., arXiv 2004.09297): BERT with relative positions besides, T5's, the same in all layers."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures.bert import bert_names
from edgellm_export.architectures.contract import LayerNames, SourceMask
from edgellm_export.architectures.encoder import EncoderNames, MaskedHead, PostNormEncoder, TextHead, read_config
from edgellm_export.blocks.build import Build
from edgellm_export.blocks.cross_attention import RelativePositions
from edgellm_export.blocks.near import places
from edgellm_export.checkpoint.config import ConfigReader

PREFIX = "mpnet."
PAD, BUCKETS, MAX_DISTANCE = 1, 32, 128  # which config.json does not change
MASKED = MaskedHead(
    dense="lm_head.dense", norm="lm_head.layer_norm", decoder="lm_head.decoder", bias="lm_head.bias",
    patterns=("lm_head.*",), act="gelu",
)  # fmt: skip
TEXT = TextHead("classifier", "classifier.dense", "tanh", ("classifier.*",), "classifier.out_proj")
PLACES = EncoderNames(
    positions=f"{PREFIX}embeddings.position_embeddings",
    types="",
    embedding_norm=f"{PREFIX}embeddings.LayerNorm",
    projection="",
    layer=LayerNames.below(
        f"{PREFIX}encoder.layer.{{}}",
        query="attention.attn.q", key="attention.attn.k", value="attention.attn.v", out="attention.attn.o",
        attention_norm="attention.LayerNorm", up="intermediate.dense", down="output.dense",
        output_norm="output.LayerNorm",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class MPNet(PostNormEncoder):
    """`buckets`: rows of the table of relative positions, of which only the first 32 are used."""

    buckets: int = BUCKETS

    def bias(self, b: Build, mask: SourceMask) -> ir.Value:
        known = b.graph.lookup("/relative")
        if known is None:
            table = b.tensors.take(
                f"{PREFIX}encoder.relative_attention_bias.weight", (self.buckets, self.config.num_heads)
            )
            relative = RelativePositions(BUCKETS, MAX_DISTANCE)
            known = (relative.of_source(b, table, places(b, mask.keys), "/relative", b.activation),)
            b.graph.remember("/relative", known)
        return known[0]


def parse(config: ConfigReader) -> MPNet:
    sizes = read_config(config, first_position=PAD + 1, has_types=False)
    buckets = config.integer("relative_attention_num_buckets", minimum=BUCKETS)
    return MPNet(sizes, bert_names(PREFIX, MASKED), PLACES, MASKED, TEXT, PAD, buckets)
