"""RoBERTa, CamemBERT, XLM-RoBERTa and data2vec for text: BERT whose positions count tokens only, from behind the
padding's own."""

from __future__ import annotations

from edgellm_export.architectures.bert import bert_names, bert_places
from edgellm_export.architectures.encoder import MaskedHead, PostNormEncoder, TextHead, read_config
from edgellm_export.checkpoint.config import ConfigReader

MASKED = MaskedHead(
    dense="lm_head.dense", norm="lm_head.layer_norm", decoder="lm_head.decoder", bias="lm_head.bias",
    patterns=("lm_head.*",), act="gelu",
)  # fmt: skip
TEXT = TextHead("classifier", "classifier.dense", "tanh", ("classifier.*",), "classifier.out_proj")


def parse(config: ConfigReader) -> PostNormEncoder:
    prefix = "data2vec_text." if config.data["model_type"] == "data2vec-text" else "roberta."
    pad = config.integer("pad_token_id", minimum=0)
    sizes, names = read_config(config, first_position=pad + 1), bert_names(prefix, MASKED)
    return PostNormEncoder(sizes, names, bert_places(prefix), MASKED, TEXT, pad)
