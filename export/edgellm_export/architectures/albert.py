"""ALBERT (Lan et al., arXiv 1909.11942): BERT whose layers share their matrices, which a package has once, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgellm_export.architectures.bert import bert_names, bert_places
from edgellm_export.architectures.contract import LayerNames
from edgellm_export.architectures.encoder import CLASSIFIER, MaskedHead, PostNormEncoder, TextHead, read_config
from edgellm_export.checkpoint.config import ConfigReader

PREFIX = "albert."
MASKED = MaskedHead(
    dense="predictions.dense", norm="predictions.LayerNorm", decoder="predictions.decoder", bias="predictions.bias",
    patterns=("predictions.*",),
)  # fmt: skip
TEXT = TextHead("pooler", f"{PREFIX}pooler", "tanh", (f"{PREFIX}pooler.*", f"{CLASSIFIER}.*"))
LAYER = LayerNames.below(
    f"{PREFIX}encoder.layer.{{}}",
    query="attention.query", key="attention.key", value="attention.value", out="attention.dense",
    attention_norm="attention.LayerNorm", up="ffn", down="ffn_output", output_norm="full_layer_layer_norm",
)  # fmt: skip


class Albert(PostNormEncoder):
    @property
    def projects(self) -> bool:
        return True


def parse(config: ConfigReader) -> Albert:
    sizes, inner = read_config(config), config.layers("inner_group_num")
    layers, groups = sizes.num_layers, config.layers("num_hidden_groups")
    places = replace(bert_places(PREFIX), projection=f"{PREFIX}encoder.embedding_hidden_mapping_in", layer=LAYER)
    names = replace(bert_names(PREFIX, MASKED), copies=_copies(layers, min(groups, layers), inner))
    names = replace(names, unused=(*names.unused, "sop_classifier.*"))
    size = config.integer("embedding_size")
    sizes = replace(sizes, embedding_size=size, num_layers=layers * inner, shared=True)
    return Albert(sizes, names, places, MASKED, TEXT)


def _copies(layers: int, groups: int, inner: int) -> Mapping[str, str]:
    """Each layer by itself, and where its tensors are: the layers of a group stand behind each other, and so do the
    inner layers of each."""
    return {
        f"{PREFIX}encoder.layer.{layer * inner + part}.": (
            f"{PREFIX}encoder.albert_layer_groups.{int(layer / (layers / groups))}.albert_layers.{part}."
        )
        for layer in range(layers)
        for part in range(inner)
    }
