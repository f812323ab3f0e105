"""DeepSeek-V3: DeepSeek-V2 whose router chooses by sigmoids and a correction, and whose weights are normalized."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.deepseek_v2 import Deepseek, read_deepseek, read_groups
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Deepseek:
    config.must_be("topk_method", "noaux_tc")
    config.must_be("scoring_func", "sigmoid")
    ranking = replace(read_groups(config), judged=2, corrected=True)
    size = config.integer("n_routed_experts") // ranking.groups
    config.require(size >= ranking.judged, f"groups have {size} experts, expected at least {ranking.judged}")
    normalized, neighbours = config.flag("norm_topk_prob"), config.flag("rope_interleave")
    deepseek = read_deepseek(config, ranking, normalized=normalized, neighbours=neighbours)
    unused = (*deepseek.names.unused, "model.layers.61.*")  # which predicts a second token
    return replace(deepseek, names=replace(deepseek.names, unused=unused))
