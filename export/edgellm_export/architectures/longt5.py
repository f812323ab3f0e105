"""LongT5 (Guo et al., arXiv 2112.07916): T5 whose encoder sees the tokens nearby and, in transient-global attention,
the sum of each block of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures import t5
from edgellm_export.architectures.t5 import T5
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.blocks.cross_attention import SourceState
from edgellm_export.blocks.local_attention import Beside, cut, local_attention
from edgellm_export.blocks.sums import Sums, block_sums
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor

LOCAL, GLOBAL = "local", "transient-global"
FIRST = "encoder.block.0.layer.0"


def parse(config: ConfigReader) -> T5:
    found = t5.parse(config)
    kind, size = config.choice("encoder_attention_type", [LOCAL, GLOBAL]), config.integer("global_block_size")
    config.require(
        kind == LOCAL or size & (size - 1) == 0,
        f"global_block_size is {size}, expected a power of 2: transformers rounds others",
    )
    reach = config.integer("local_radius", maximum=1 << 16)
    return LongT5(found.config, reach=reach, global_size=size if kind == GLOBAL else None)


@dataclass(frozen=True)
class LongT5(T5):
    """`reach`: tokens that a token sees to either side. `global_size`: of the blocks that it sees sums of, if any."""

    reach: int = 0
    global_size: int | None = None

    def source_state(self, b: Build, source: SourceState) -> SourceState:
        weight = self._biases(b, "relative_attention_bias")
        bias = self.config.positions.of_block(b, weight, self.reach, self.reach + 1, "/encoder/relative")
        return replace(source, bias=bias)

    def source_layer(self, b: Build, index: int, stream: Stream, source: SourceState) -> Stream:
        name = f"encoder.block.{index}"
        residual = norms.add(b, stream, f"{name}.layer.0.residual")
        weight = b.vector(f"{name}.layer.0.layer_norm.weight", self.shape.hidden_size)
        x = norms.rms_norm(
            b, residual, weight, self.config.layer_norm_epsilon, f"{name}.layer.0.layer_norm",
            only_linear=self.global_size is None,
        )  # fmt: skip
        y = self._source_attention(b, x, source, f"{name}.layer.0.{self._attention_name}")
        return self._feed_forward(b, Stream(residual, y), f"{name}.layer.1")

    @property
    def _attention_name(self) -> str:
        return "LocalSelfAttention" if self.global_size is None else "TransientGlobalSelfAttention"

    def _source_attention(self, b: Build, x: ir.Value, source: SourceState, name: str) -> ir.Value:
        assert source.mask is not None
        assert source.bias is not None
        blocks, beside = cut(b, source.mask, self.reach + 1), None
        if self.global_size is None:
            qkv = [self._linear(b, x, f"{name}.{side}") for side in "qkv"]
        else:
            qkv, beside = self._with_sums(b, x, block_sums(b, source.mask, self.global_size), name)
        y = local_attention(b, qkv, self.config.heads, blocks, source.bias, name, beside)
        return self._output(b, y, f"{name}.o")

    def _with_sums(self, b: Build, x: ir.Value, sums: Sums, name: str) -> tuple[list[ir.Value], Beside]:
        """Queries, keys and values of the tokens, and keys and values of their sums: the same matrices, read once."""
        summed = sums.of(b, x, f"{name}.global_inputs")
        weight = b.vector(f"{name}.global_input_layer_norm.weight", self.shape.hidden_size)
        eps, norm = self.config.layer_norm_epsilon, f"{name}.global_input_layer_norm"
        summed = norms.rms_norm(b, summed, weight, eps, norm, only_linear=False)
        both = b.graph.op("Concat", x, summed, axis=1, name=f"/{norm}/Join")
        key, value = (sums.apart(b, self._linear(b, both, f"{name}.{side}"), f"{name}.{side}") for side in "kv")
        table = self.config.positions.table(self._biases(b, "global_relative_attention_bias"))
        bias = sums.bias(b, table, "/encoder/global_relative")
        return [self._linear(b, x, f"{name}.q"), key[0], value[0]], Beside(key[1], value[1], sums.seen, bias)

    def _biases(self, b: Build, name: str) -> LazyTensor:
        shape = (self.config.positions.buckets, self.config.heads.num_heads)
        return b.tensors.take(f"{FIRST}.{self._attention_name}.{name}.weight", shape)
