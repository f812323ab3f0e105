"""Mamba-2: layers that are a state space behind a norm, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.decoder import NamedDecoder, read_shape
from edgellm_export.architectures.mamba import Keys, read_state_space
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, LayerCache, Stream
from edgellm_export.blocks.layers import ACTIVATIONS
from edgellm_export.blocks.state_space import StateSpace, state_space
from edgellm_export.checkpoint.config import ConfigReader

CONTEXT = 1 << 20  # tokens; the config has no limit, and nothing takes more for more
NO_HEADS = Heads(1, 1, 1)  # of attention
KEYS = Keys("num_heads", "head_dim", "n_groups", "state_size", "conv_kernel", "expand", "use_bias", "use_conv_bias")
NAMES = Names(prefix="backbone.", embedding="backbone.embeddings", aliases=("backbone.embedding.weight",))


@dataclass(frozen=True)
class Mamba2Config:
    shape: DecoderShape
    space: StateSpace


def parse(config: ConfigReader) -> Mamba2:
    hidden, layers = config.integer("hidden_size"), config.layers("num_hidden_layers")
    act, eps = config.choice("hidden_act", [*ACTIVATIONS]), config.number("layer_norm_epsilon")
    space = read_state_space(config, KEYS, hidden, range(layers), eps=eps, act=act)
    shape = read_shape(config, hidden, layers, NO_HEADS, context=CONTEXT)
    return Mamba2(Mamba2Config(replace(shape, states=space.layout), space), NAMES)


class Mamba2(NamedDecoder[Mamba2Config]):
    known_to_genai = False

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name, space = f"backbone.layers.{index}", self.config.space
        x, stream = norms.add_rms_norm_of(b, stream, f"{name}.norm", space.eps)
        y, present = state_space(b, x, f"{name}.mixer", space, cache, batch)
        return Stream(stream.residual, y), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return norms.add_rms_norm_of(b, stream, "backbone.norm_f", self.config.space.eps)[0]
