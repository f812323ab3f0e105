"""BERT, and sentence encoders made of it."""

from __future__ import annotations

from edgellm_export.architectures.contract import LayerNames
from edgellm_export.architectures.encoder import (
    CLASSIFIER,
    UNUSED,
    EncoderNames,
    MaskedHead,
    PostNormEncoder,
    TextHead,
    read_config,
)
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.config import ConfigReader

# Checkpoints converted from TensorFlow name the two vectors of a norm otherwise.
OLDER = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
MASKED = MaskedHead(
    dense="cls.predictions.transform.dense", norm="cls.predictions.transform.LayerNorm",
    decoder="cls.predictions.decoder", bias="cls.predictions.bias", patterns=("cls.predictions.*",),
)  # fmt: skip


def text_head(prefix: str) -> TextHead:
    return TextHead("pooler", f"{prefix}pooler.dense", "tanh", (f"{prefix}pooler.*", f"{CLASSIFIER}.*"))


def bert_names(prefix: str, masked: MaskedHead = MASKED) -> Names:
    """Tensors as BERT and its closest relatives name them. The head's bias may be there twice."""
    embedding, twins = f"{prefix}embeddings.word_embeddings", {masked.bias: f"{masked.decoder}.bias"}
    return Names(
        prefix, embedding, masked.decoder, twins=twins, older=OLDER, unused=(*UNUSED, "cls.seq_relationship.*")
    )


def bert_places(prefix: str) -> EncoderNames:
    embeddings, layer = f"{prefix}embeddings", f"{prefix}encoder.layer.{{}}"
    return EncoderNames(
        positions=f"{embeddings}.position_embeddings",
        types=f"{embeddings}.token_type_embeddings",
        embedding_norm=f"{embeddings}.LayerNorm",
        projection=f"{prefix}embeddings_project",
        layer=LayerNames.below(
            layer, query="attention.self.query", key="attention.self.key", value="attention.self.value",
            out="attention.output.dense", attention_norm="attention.output.LayerNorm",
            up="intermediate.dense", down="output.dense", output_norm="output.LayerNorm",
        ),
    )  # fmt: skip


def parse(config: ConfigReader) -> PostNormEncoder:
    return PostNormEncoder(read_config(config), bert_names("bert."), bert_places("bert."), MASKED, text_head("bert."))
