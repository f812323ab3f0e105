"""OLMo 3: OLMo 2 with sliding windows on three layers of four, whose rope is never stretched."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.gemma3 import LOCAL, WIDE, ropes_by_kind
from edgellm_export.architectures.llama import read_heads, read_llama, with_biases
from edgellm_export.architectures.olmo2 import Olmo2
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Olmo2:
    heads = read_heads(config, config.integer("hidden_size"))
    ropes = ropes_by_kind(config, {WIDE: "rope_theta", LOCAL: "rope_theta"}, heads.head_dim)
    own = {name: value for name, value in config.data.items() if name not in ("rope_scaling", "rope_parameters")}
    llama = with_biases(config, read_llama(replace(config, data=own)))
    default = [LOCAL if (i + 1) % 4 else WIDE for i in range(llama.shape.num_layers)]
    windows = config.windows(config.optional_integer("sliding_window"), default)
    shape = replace(llama.shape, ropes=tuple(ropes.values()))
    return Olmo2(
        replace(
            llama, shape=shape, windows=windows, ropes=[ropes[WIDE if window is None else LOCAL] for window in windows]
        )
    )
