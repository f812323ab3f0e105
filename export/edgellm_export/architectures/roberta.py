"""RoBERTa, CamemBERT and XLM-RoBERTa: BERT whose positions count tokens only, from behind the padding's own."""

from __future__ import annotations

from edgellm_export.architectures.bert import bert_names, bert_places
from edgellm_export.architectures.encoder import MaskedHead, PostNormEncoder, TextHead, read_config
from edgellm_export.checkpoint.config import ConfigReader

PREFIX = "roberta."
MASKED = MaskedHead(
    dense="lm_head.dense", norm="lm_head.layer_norm", decoder="lm_head.decoder", bias="lm_head.bias",
    patterns=("lm_head.*",), act="gelu",
)  # fmt: skip
TEXT = TextHead("classifier", "classifier.dense", "tanh", ("classifier.*",), "classifier.out_proj")


def parse(config: ConfigReader) -> PostNormEncoder:
    pad = config.integer("pad_token_id", minimum=0)
    sizes, names = read_config(config, first_position=pad + 1), bert_names(PREFIX, MASKED)
    return PostNormEncoder(sizes, names, bert_places(PREFIX), MASKED, TEXT, pad)
