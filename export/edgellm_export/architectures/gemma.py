"""Gemma: Llama with scaled embeddings, and norms that are stored as weight - 1."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, read_llama, with_biases
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import BatchState, Build, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Gemma:
    config.must_be("use_bidirectional_attention", False)
    config.no_windows()
    llama = with_biases(config, read_llama(config))
    # What early checkpoints call gelu is its approximation, which transformers 4.57 takes at its word.
    act = "gelu_pytorch_tanh" if llama.hidden_act == "gelu" else llama.hidden_act
    return Gemma(replace(llama, hidden_act=act))


class Gemma(Llama):
    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        x = super().embed(b, input_ids, batch).residual
        return Stream(blocks.scale(b, x, math.sqrt(self.shape.hidden_size), f"{self.names.embedding}.scale"))

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        weight = b.vector(f"{name}.weight", self.shape.hidden_size) + 1
        return norms.add_rms_norm(b, stream, weight, self.config.rms_norm_eps, name)
