"""DeBERTa (He et al., arXiv 2006.03654), the first version: one matrix for queries, keys and values, head by head."""

from __future__ import annotations

import numpy as np

from edgellm.types import FloatArray
from edgellm_export.architectures.contract import LayerNames
from edgellm_export.architectures.deberta_v2 import QUERIES, Deberta, read_deberta
from edgellm_export.blocks.build import Build
from edgellm_export.blocks.encoder_attention import Sides
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor, RunPart


class DebertaV1(Deberta):
    def sides(self, b: Build, names: LayerNames) -> Sides:
        c, place = self.config, names.query.rpartition(".")[0]
        whole = b.tensors.take(f"{place}.in_proj.weight", (3 * c.hidden_size, c.hidden_size))
        size, sides = c.hidden_size // c.num_heads, (names.query, names.key, names.value)
        weights = [
            RunPart(f"{side}.weight", whole, part * size, (part + 1) * size, 3 * size)
            for part, side in enumerate(sides)
        ]
        query, value = (b.vector(f"{place}.{part}_bias", c.hidden_size) for part in ("q", "v"))
        return Sides(sides, weights, (query, None, value))

    def distance_layer(self, b: Build, names: LayerNames, sides: Sides, kind: str) -> tuple[LazyTensor, FloatArray]:
        size, place = self.config.hidden_size, names.query.rpartition(".")[0]
        if kind == QUERIES:
            return b.tensors.take(f"{place}.pos_proj.weight", (size, size)), np.zeros(size, np.float32)
        return b.tensors.take(f"{place}.pos_q_proj.weight", (size, size)), b.vector(f"{place}.pos_q_proj.bias", size)


def parse(config: ConfigReader) -> DebertaV1:
    found = read_deberta(config)
    config.must_be("position_buckets", -1)
    return DebertaV1(**vars(found))
