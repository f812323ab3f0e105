"""SmolLM3: Llama whose layers are not all rotated; those that are not may have a sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgellm_export.architectures.llama import Llama, read_llama, with_biases
from edgellm_export.checkpoint.config import FULL, SLIDING, ConfigReader


def parse(config: ConfigReader) -> Llama:
    llama = replace(with_biases(config, read_llama(config)), mlp_bias=config.flag("mlp_bias"))
    rotated = _rotated(config, llama.shape.num_layers)
    window = config.optional_integer("sliding_window")
    slides = window is not None and config.flag("use_sliding_window")
    default = [SLIDING if slides and not turns else FULL for turns in rotated]
    ropes = [llama.rope if turns else None for turns in rotated]
    return Llama(replace(llama, ropes=ropes, windows=config.windows(window, default)))


def _rotated(config: ConfigReader, layers: int) -> Sequence[bool]:
    """Whether each layer is: despite its name, `no_rope_layers` has 1 for those that are."""
    interval, given = config.integer("no_rope_layer_interval"), config.data.get("no_rope_layers")
    if given is None:
        return [(i + 1) % interval != 0 for i in range(layers)]
    fits = isinstance(given, list) and len(given) == layers and all(each in (0, 1) for each in given)
    config.require(fits, f"no_rope_layers is {given!r}, expected {layers} times 0 or 1")
    return [bool(each) for each in given] if fits else [True] * layers
