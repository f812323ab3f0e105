"""OLMo: Llama with norms that have no weights, and queries, keys and values that may be clipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, read_llama, with_biases
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.checkpoint.config import ConfigReader

EPS = 1e-5


def parse(config: ConfigReader) -> Olmo:
    config.no_windows()
    return Olmo(with_biases(config, read_llama(config, eps=None)), clip=config.optional_number("clip_qkv"))


@dataclass(frozen=True)
class Olmo(Llama):
    """`clip`: the largest magnitude of queries, keys and values."""

    clip: float | None = None

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, EPS, has=())

    def _qkv(self, b: Build, x: ir.Value, name: str) -> Sequence[ir.Value]:
        qkv = super()._qkv(b, x, name)
        return qkv if self.clip is None else [blocks.clip(b, each, self.clip, f"{name}.clip") for each in qkv]
