"""Mistral and Ministral: Llama with a sliding window on every layer (early versions), on some, or on none."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Llama:
    config.must_be("attention_chunk_size", None)
    llama = read_llama(config)
    window = config.optional_integer("sliding_window")
    default = ["full_attention" if window is None else "sliding_attention"] * llama.shape.num_layers
    found = replace(llama, windows=config.windows(window, default))
    apart = config.data["model_type"] == "ministral" or config.data.get("layer_types") is not None
    return Ministral(found) if apart else Llama(found)


class Ministral(Llama):
    known_to_genai = False
