"""EuroBERT (Boizard et al., arXiv 2503.05500): Llama whose tokens see both ways, with an encoder's heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures.contract import EncoderConfig, HeadKind
from edgellm_export.architectures.encoder import CLASSIFIER, classify
from edgellm_export.architectures.llama import Llama, read_llama, with_biases
from edgellm_export.architectures.names import USUAL
from edgellm_export.architectures.states import DecoderStates
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.attention import separate_qkv
from edgellm_export.blocks.build import Build
from edgellm_export.blocks.pooling import pooled
from edgellm_export.checkpoint.config import ConfigReader

DENSE, LATE = "dense", "late"


class SeesBothWays(Llama):
    def _qkv(self, b: Build, x: ir.Value, name: str) -> Sequence[ir.Value]:
        c = self.config
        return separate_qkv(b, x, name, c.heads, self.shape.hidden_size, bias=c.qkv_bias)


def parse(config: ConfigReader) -> EuroBert:
    config.no_windows()
    config.must_be("is_causal", False)
    bias, causal = config.flag("mlp_bias"), replace(config, data={**config.data, "is_causal": True})  # as Llama's is
    llama = replace(with_biases(config, read_llama(causal)), mlp_bias=bias)
    decoder = SeesBothWays(llama, replace(USUAL, head_bias="lm_head.bias" if bias else None))
    return EuroBert(decoder, both_ways=True, pooling=config.choice("classifier_pooling", ["bos", "mean", LATE]))


@dataclass(frozen=True)
class EuroBert(DecoderStates):
    """`pooling`: of texts' classes, of their states or, late, of what the classifier says of each token."""

    pooling: str = LATE

    @property
    def config(self) -> EncoderConfig:
        return replace(super().config, tied_embedding=self.decoder.tied)

    @property
    def classifiers(self) -> Sequence[str]:
        return (CLASSIFIER,)

    def head(self, b: Build, x: ir.Value, kind: HeadKind, labels: int, mask: ir.Value) -> ir.Value:
        hidden = self.config.hidden_size
        if kind == "question-answering":
            raise UnsupportedModelError("EuroBERT has no head for question-answering")
        if kind == "fill-mask":
            return self.decoder.head(b, x)
        if kind == "token-classification":
            return classify(b, x, CLASSIFIER, labels, hidden)
        if self.pooling != LATE:
            x = pooled(b, x, mask, "cls" if self.pooling == "bos" else "mean")
        y = blocks.activate(b, blocks.linear(b, x, DENSE, hidden, hidden, bias=True), "gelu", f"{DENSE}.act")
        found = classify(b, y, CLASSIFIER, labels, hidden)
        return pooled(b, found, mask, "mean") if self.pooling == LATE else found

    def head_patterns(self, kind: HeadKind) -> Sequence[str]:
        if kind == "fill-mask":
            return super().head_patterns(kind)
        return (f"{DENSE}.*", f"{CLASSIFIER}.*")
