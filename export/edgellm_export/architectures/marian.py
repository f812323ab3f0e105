"""Marian: BART with sinusoidal positions and no norm behind the embedding."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.bart import SIDES, SINUSOIDS, Bart, parse_bart
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Bart:
    bart = parse_bart(config, pre_norm=False, embedding_norm=False, positions=SINUSOIDS)
    if config.flag("share_encoder_decoder_embeddings"):
        return bart
    vocab_size = bart.shape.vocab_size
    config.require(
        (config.data.get("decoder_vocab_size") or vocab_size) == vocab_size,
        "decoder_vocab_size is not vocab_size; edgellm builds models with one size for both",
    )
    return replace(bart, config=replace(bart.config, own_embeddings=SIDES))
