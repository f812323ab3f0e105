"""Granite: Llama whose embeddings, blocks, scores and logits are multiplied by numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, LlamaConfig, read_llama, with_biases
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader


@dataclass(frozen=True)
class Factors:
    embedding: float
    residual: float
    logits: float


def parse(config: ConfigReader) -> Granite:
    config.no_windows()
    llama = replace(with_biases(config, scaled_llama(config)), mlp_bias=config.flag("mlp_bias"))
    return Granite(llama, factors=read_factors(config))


def scaled_llama(config: ConfigReader) -> LlamaConfig:
    llama = read_llama(config)
    return replace(llama, heads=replace(llama.heads, scale=config.number("attention_multiplier")))


def read_factors(config: ConfigReader) -> Factors:
    keys = ("embedding_multiplier", "residual_multiplier", "logits_scaling")
    embedding, residual, divisor = (config.number(key) for key in keys)
    return Factors(embedding, residual, 1 / divisor)


@dataclass(frozen=True)
class Granite(Llama):
    factors: Factors = Factors(1.0, 1.0, 1.0)

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        x = super().embed(b, input_ids, batch).residual
        return Stream(self._scaled(b, x, self.factors.embedding, f"{self.names.embedding}.scale"))

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return self._scaled(b, super().head(b, hidden), self.factors.logits, f"{self.names.head}.scale")

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        y, present = super()._attention(b, x, name, cache, batch, index)
        return self._scaled(b, y, self.factors.residual, f"{name}.scale"), present

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return self._scaled(b, self._plain_mlp(b, x, name), self.factors.residual, f"{name}.scale")

    def _plain_mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return super()._mlp(b, x, name)

    def _scaled(self, b: Build, x: ir.Value, factor: float, name: str) -> ir.Value:
        return x if factor == 1 else blocks.scale(b, x, factor, name)
