"""A decoder without its head, as an encoder: what its last norm gives for each token of a text that is read at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.architectures.contract import DecoderFamily, EncoderConfig, HeadKind, SourceMask
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.blocks.near import places
from edgellm_export.blocks.norms import add
from edgellm_export.blocks.rope import needs_length_input
from edgellm_export.checkpoint.tensors import LazyTensor


@dataclass(frozen=True)
class DecoderStates:
    """`both_ways`: tokens see those behind them, too."""

    decoder: DecoderFamily
    both_ways: bool = False

    @property
    def names(self) -> Names:
        return self.decoder.names

    @property
    def tied(self) -> bool:
        return self.decoder.tied

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        return self.decoder.defaults

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        return replace(self, decoder=self.decoder.fitted(tensors))

    @property
    def config(self) -> EncoderConfig:
        shape = self.decoder.shape
        return EncoderConfig(
            vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, embedding_size=shape.hidden_size,
            num_layers=shape.num_layers, num_heads=1, intermediate_size=shape.hidden_size,
            positions=shape.context_length, first_position=0, types=0, act="", eps=0.0, tied_embedding=False,
        )  # fmt: skip

    @property
    def adds(self) -> bool:
        return True

    @property
    def classifiers(self) -> Sequence[str]:
        return ()

    def made_by(self, index: int) -> str | None:
        return None

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        stream = self.decoder.embed(b, ids, self._batch(b, ids))
        if stream.beside:
            raise UnsupportedModelError("edgellm builds no embedding model of a decoder with inputs for each layer")
        return add(b, stream, "embedding")

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        batch, cache = self._batch(b, mask.keys), LayerCache(None, None)
        stream, _ = self.decoder.layer(b, index, Stream(x), cache, batch)
        return add(b, stream, f"states.{index}")

    def final_norm(self, b: Build, x: ir.Value) -> ir.Value:
        return self.decoder.final_norm(b, Stream(x))

    def head(self, b: Build, x: ir.Value, kind: HeadKind, labels: int, mask: ir.Value) -> ir.Value:
        raise AssertionError("no head")

    def head_patterns(self, kind: HeadKind) -> Sequence[str]:
        return (f"{self.names.head}.weight", f"{self.names.head}.bias")

    def _batch(self, b: Build, keys: ir.Value) -> BatchState:
        """Of rows that begin with their first token. keys: [B, S], ones for tokens, then zeros; where nothing looks at
        lengths, token ids do, too."""
        g, root = b.graph, f"/batch/{keys.name}"
        known = g.lookup(root)
        if known is None:
            wide = g.op("Cast", keys, to=int(ir.DataType.INT64), name=f"{root}/Wide")
            lengths = g.op("ReduceSum", wide, g.ints(1), keepdims=0, name=f"{root}/ReduceSum")
            last = g.op("Sub", lengths, g.ints(1), name=f"{root}/Sub")
            seqlens = g.op("Cast", last, to=int(ir.DataType.INT32), name=f"{root}/Cast")
            width = g.op("Shape", keys, start=1, end=2, name=f"{root}/Shape")
            narrow = g.op("Cast", width, to=int(ir.DataType.INT32), name=f"{root}/Narrow")
            total = g.op("Squeeze", narrow, g.ints(0), name=f"{root}/Squeeze")
            shape = g.op("Shape", keys, name=f"{root}/Whole")
            known = (seqlens, total, g.op("Expand", places(b, keys), shape, name=f"{root}/Expand"), lengths)
            g.remember(root, known)
        seqlens, total, positions, lengths = known
        by_length = lengths if needs_length_input(self.decoder.shape.ropes) else None
        return BatchState(seqlens, total, positions, by_length, keys if self.both_ways else None)
