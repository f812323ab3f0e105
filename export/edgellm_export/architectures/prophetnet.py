"""ProphetNet (Qi et al., arXiv 2001.04063): BART whose decoder has two streams, of the tokens read and of those to
come, one behind the other: [R, 2 S, hidden]. Behind its last layer is the predicting one alone, as nothing reads the
other there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.bart import Bart, BartConfig, Parts, Positions, read_side
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, DecoderShape, LayerCache, Stream, node
from edgellm_export.blocks.cross_attention import CrossState, TargetState
from edgellm_export.blocks.ngram_attention import Buckets, Streams, ngram_attention
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader

PARTS = Parts(
    root="prophetnet", shared="word_embeddings", tokens="word_embeddings", positions="position_embeddings",
    embedding_norm="embeddings_layer_norm", qkv=("query_proj", "key_proj", "value_proj"), across="cross_attn",
    up="feed_forward.intermediate", down="feed_forward.output", feed_forward_norm="feed_forward_layer_norm",
)  # fmt: skip
SKIPPED = 1  # rows of a table of positions before that of the first token; the predicting stream is one further


def parse(config: ConfigReader) -> ProphetNet:
    for key, expected in (("is_encoder_decoder", True), ("add_cross_attention", True), ("is_causal", True)):
        config.must_be(key, expected, null=False)
    config.must_be("pad_token_id", 0, null=False)  # transformers counts distances from it once there is a cache
    config.no_windows()
    hidden = config.integer("hidden_size")
    encoder, decoder = (
        read_side(config, name, hidden, size="hidden_size", number="num_") for name in ("encoder", "decoder")
    )
    positions = config.integer("max_position_embeddings", minimum=SKIPPED + 2, maximum=MAX_POSITIONS)
    count = config.integer("num_buckets", minimum=2)
    buckets = Buckets(count, config.integer("relative_max_distance", maximum=1 << 16))
    config.require(
        buckets.max_distance > buckets.count // 2,
        f"relative_max_distance is {buckets.max_distance}, expected more than half of num_buckets ({buckets.count})",
    )
    shape = DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=decoder.layers,
        num_kv_heads=decoder.heads.num_heads,
        head_dim=decoder.heads.head_dim,
        context_length=positions - SKIPPED - 1,
        tied_embedding=config.flag("tie_word_embeddings"),
    )
    act = config.choice("activation_function", list(blocks.ACTIVATIONS))
    bart = BartConfig(
        shape, encoder, decoder, act, embedding_scale=1.0, pre_norm=False, embedding_norm=True,
        positions=Positions(first=SKIPPED), parts=PARTS,
    )  # fmt: skip
    return ProphetNet(bart, buckets, positions, config.integer("ngram"))


@dataclass(frozen=True)
class ProphetNet(Bart):
    """`rows`: of a table of positions. `ngram`: streams that predict, of which the first is built."""

    counts_by_row: ClassVar = False  # the predicting stream sees all keys up to the end of the longest row
    buckets: Buckets
    rows: int
    ngram: int

    @property
    def source_length(self) -> int | None:
        return self.rows

    def embed(self, b: Build, input_ids: ir.Value, target: TargetState) -> Stream:
        g, name = b.graph, f"{PARTS.root}.decoder"
        place, table = node(f"{name}.{PARTS.positions}"), self._position_table(b, "decoder")
        here = g.op("Gather", table, target.positions, axis=0, name=f"{place}/Gather")
        following = g.op("Add", target.positions, g.ints(1), name=f"{place}/Following")
        further = g.op("Gather", table, following, axis=0, name=f"{place}/following/Gather")
        main = norms.add(b, Stream(self._tokens(b, self.config.decoder, input_ids), here), f"{name}.main")
        vector = b.tensors.take(f"{name}.ngram_embeddings.weight", (self.ngram, self.shape.hidden_size))
        first = vector.rows(self.ngram - 1, self.ngram)[0]  # the first stream has the last row
        own = g.array(f"{name}.ngram_embeddings", first.astype(b.activation))
        rows = g.op("Concat", target.rows, g.ints(1, 1), axis=0, name=f"{node(name)}/ngram/Rows")
        added = norms.add(b, Stream(further, own), f"{name}.ngram")
        x = Streams(main, g.op("Expand", added, rows, name=f"{node(name)}/ngram/Expand")).joined(b, name)
        return Stream(self._layer_norm(b, x, f"{name}.{PARTS.embedding_norm}", feeds_stream=True))

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        name, side, hidden = f"{PARTS.root}.decoder.layers.{index}", self.config.decoder, self.shape.hidden_size
        own, heads = f"{name}.self_attn", side.heads
        x, stream = self._before(b, stream, f"{own}_layer_norm")
        qkv = attention.stacked_qkv(b, x, PARTS.below(own), heads, hidden, bias=True)
        count = self.buckets.count * heads.num_heads
        numbers = blocks.linear(b, x, f"{own}.relative_pos_embeddings", count, hidden, bias=True)
        streams, present = ngram_attention(b, qkv, numbers, self.buckets, heads, cache, target, own)
        if index == self.shape.num_layers - 1:
            y, stream = streams.predicting, Stream(Streams.of(b, x, f"{name}.last").predicting)
        else:
            y = streams.joined(b, own)
        y = blocks.linear(b, y, f"{own}.out_proj", hidden, heads.query_size, bias=True)
        stream = self._behind(b, stream, y, f"{own}_layer_norm")
        return self._rest_of_layer(b, stream, source, target, name), present

    def _position_table(self, b: Build, side: str) -> ir.Value:
        """Rows from that of the first token on; sources of as many tokens as it has rows get the last one twice."""
        name = PARTS.positions_of(side)
        table = b.tensors.take(name, (self.rows, self.shape.hidden_size)).rows(SKIPPED, self.rows)
        if side == "encoder":
            table = np.concatenate([table, *[table[-1:]] * SKIPPED])
        return b.graph.array(name, np.ascontiguousarray(table, b.activation))
