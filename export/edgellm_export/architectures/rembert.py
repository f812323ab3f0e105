"""RemBERT (Chung et al., arXiv 2010.12821): BERT whose words have small vectors at its entrance, and large ones of
their own at its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgellm_export.architectures.bert import bert_names, bert_places, text_head
from edgellm_export.architectures.encoder import MaskedHead, PostNormEncoder, read_config
from edgellm_export.checkpoint.config import ConfigReader

PREFIX = "rembert."
MASKED = MaskedHead(
    dense="cls.predictions.dense", norm="cls.predictions.LayerNorm", decoder="cls.predictions.decoder",
    bias="cls.predictions.decoder.bias", patterns=("cls.predictions.*",),
)  # fmt: skip
PLACES = replace(bert_places(PREFIX), projection=f"{PREFIX}encoder.embedding_hidden_mapping_in")


@dataclass(frozen=True)
class RemBert(PostNormEncoder):
    """`output_size`: of the vectors that the states are compared with."""

    output_size: int = 0

    @property
    def projects(self) -> bool:
        return True

    @property
    def head_size(self) -> int:
        return self.output_size


def parse(config: ConfigReader) -> RemBert:
    config.must_be("tie_word_embeddings", False)
    sizes = replace(read_config(config), embedding_size=config.integer("input_embedding_size"))
    names, output = replace(bert_names(PREFIX, MASKED), twins={}), config.integer("output_embedding_size")
    return RemBert(sizes, names, PLACES, MASKED, text_head(PREFIX), output_size=output)
