"""CodeGen: GPT-J with one matrix for queries, values and keys, in four parts, as it was trained on four cores."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import Classic
from edgellm_export.architectures.gptj import LAYER, NAMES, read_gptj
from edgellm_export.blocks.attention import Packing
from edgellm_export.checkpoint.config import ConfigReader

PARTS = 4
ONE_MATRIX = replace(LAYER, qkv=("attn.qkv_proj",))
CAUSAL = replace(NAMES, unused=(*NAMES.unused, "*.attn.causal_mask"))  # of older checkpoints


def parse(config: ConfigReader) -> Classic:
    classic = read_gptj(config, ONE_MATRIX)
    heads = classic.heads.num_heads
    config.require(heads % PARTS == 0, f"n_head is {heads}, expected a multiple of {PARTS}")
    size = max(1, heads // PARTS) * classic.heads.head_dim
    packing = Packing((0, size), (2 * size, 3 * size), (size, 2 * size), 3 * size)
    return Classic(replace(classic, packing=packing), CAUSAL)
