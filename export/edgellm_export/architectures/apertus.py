"""Apertus: Llama with normed query and key heads, and xIELU (Huang and Schlag, arXiv 2411.13010), whose numbers are
learned, for a gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(
    older={
        "attention_layernorm.weight": "input_layernorm.weight",
        "feedforward_layernorm.weight": "post_attention_layernorm.weight",
    }
)


def parse(config: ConfigReader) -> Apertus:
    config.no_windows()
    config.must_be("hidden_act", "xielu", null=False)
    bias = config.flag("attention_bias")
    llama = read_llama(replace(config, data={**config.data, "hidden_act": "silu"}))
    return Apertus(replace(llama, qkv_bias=bias, output_bias=bias, qk_norm=True), NAMES)


class Apertus(Relative):
    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        hidden, size = self.shape.hidden_size, self.config.intermediate_size
        y = blocks.linear(b, x, f"{name}.up_proj", size, hidden, bias=False)
        return blocks.linear(b, self._xielu(b, y, f"{name}.act_fn"), f"{name}.down_proj", hidden, size, bias=False)

    def _xielu(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        """alpha_p * x^2 above 0, alpha_n * (exp(min(x, eps)) - 1 - x) below, and beta * x on both sides."""
        place, beta = node(name), self._number(b, f"{name}.beta", ())
        alpha_p, alpha_n = (_softplus(self._number(b, f"{name}.alpha_{side}", (1,))) for side in "pn")

        def op(kind: str, label: str, *inputs: ir.Value) -> ir.Value:
            return b.graph.op(kind, *inputs, name=f"{place}/{label}")

        def number(label: str, value: float) -> ir.Value:
            return b.graph.constant(f"{name}.{label}", np.array(value, b.activation))

        above = op("Mul", "square/scale", op("Mul", "square", x, x), number("alpha_p", alpha_p))
        bounded = op("Min", "bounded", x, number("eps", self._number(b, f"{name}.eps", ())))
        below = op("Sub", "below", op("Sub", "expm1", op("Exp", "exp", bounded), number("one", 1.0)), x)
        below = op("Mul", "below/scale", below, number("alpha_n", beta + alpha_n))
        side = op("Where", "side", op("Greater", "positive", x, number("zero", 0.0)), above, below)
        return op("Add", "sum", side, op("Mul", "linear", x, number("beta", beta)))

    def _number(self, b: Build, name: str, shape: tuple[int, ...]) -> float:
        return float(b.tensors.take(name, shape).rows(0, 1).item())


def _softplus(x: float) -> float:
    return float(np.logaddexp(0.0, x))
