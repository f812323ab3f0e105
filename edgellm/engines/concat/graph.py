"""Decoder graphs that concatenate their cache, as optimum writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.checks import check_graphs, lacks_graphs
from edgellm.engines.concat.abilities import BatchingGraph, Step, agree
from edgellm.engines.concat.cache import ConcatCache
from edgellm.ort.binding import DTYPES
from edgellm.ort.loaded_graph import LoadedGraph, LoadSettings
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import Array, Logits, TokenArray

INPUTS = (
    "input_ids", "attention_mask", "position_ids", "token_type_ids", "use_cache_branch", "num_logits_to_keep",
)  # fmt: skip


def open_concat_graph(package: Path, manifest: Manifest[DecoderFacts], settings: LoadSettings) -> ConcatGraph:
    """The graph "model" of a package, or "first" and "later". Raises PackageCorruptError where one of them lacks what
    the manifest promises."""
    if manifest.graphs.keys() not in ({"model"}, {"first", "later"}):
        raise lacks_graphs(manifest, "a graph, or two called first and later")
    graphs = {name: settings.open(package / graph.file, fuse=True) for name, graph in manifest.graphs.items()}
    check_graphs(graphs, manifest, dict.fromkeys(graphs, INPUTS))
    first, later = (graphs.get(name) or graphs["model"] for name in ("first", "later"))
    return ConcatGraph(first, later, manifest)


class ConcatGraph(BatchingGraph):
    """Runs rows and their past through the graph. `first`: the graph for rows without a past, `later` for the others,
    which are one and the same unless the package has a graph for each. Several engines may share it."""

    def __init__(self, first: LoadedGraph, later: LoadedGraph, manifest: Manifest[DecoderFacts]) -> None:
        super().__init__(manifest.model.cache, manifest.vocab_size)
        self.loaded = first
        self._first, self._later = first, later

    def run(self, cache: ConcatCache, rows: Sequence[int], ids: TokenArray) -> Logits:
        """Append ids [rows, tokens] to some rows of the cache. Returns [rows, tokens, vocab] float32."""
        block = cache.together(rows)
        loaded = self._later if block.length else self._first
        lengths = np.array([cache.lengths[row] for row in rows], np.int64)
        feeds: dict[str, Any] = typed(_inputs(ids, lengths, block.length), loaded)
        pasts = [past for past, _ in cache.names]
        feeds |= {name: past for name, past in zip(pasts, block.tensors, strict=True) if name in loaded.inputs}
        logits, *presents = loaded.run(feeds, ["logits", *(present for _, present in cache.names)])
        cache.advance(rows, presents, ids.shape[1])
        return logits.numpy().astype(np.float32, copy=False)

    @cached_property
    def takes_chunks(self) -> bool:
        """Whether tokens get the same logits behind a past as in one piece with it."""
        if self._later.input_shapes["input_ids"][1] == 1:
            return False
        ids = self._tokens(5)[None]

        def whole() -> Logits:
            return self.run(self._cache(1), [0], ids)[:, 2:]

        def in_chunks() -> Logits:
            cache = self._cache(1)
            self.run(cache, [0], ids[:, :2])
            return self.run(cache, [0], ids[:, 2:])

        return agree(whole, in_chunks, self.layout.dtype)

    def _begun(self, lengths: Sequence[int]) -> Step:
        tokens = self._tokens(sum(lengths) + len(lengths))
        new, cache = tokens[: len(lengths), None], self._cache(len(lengths))
        for row, prompt in enumerate(np.split(tokens[len(lengths) :], np.cumsum(lengths)[:-1])):
            self.run(cache, [row], prompt[None])
        return lambda rows: self.run(cache, rows, new[rows])[:, 0]

    def _cache(self, rows: int) -> ConcatCache:
        cache = ConcatCache(self.layout)
        cache.reset(rows)
        return cache


def _inputs(ids: TokenArray, lengths: npt.NDArray[np.int64], past: int) -> Mapping[str, Array]:
    """All that a graph may ask for. ids: [rows, tokens], lengths: [rows] tokens behind `past` places."""
    count = ids.shape[1]
    padding = past - lengths
    return {
        "input_ids": ids,
        "attention_mask": np.arange(past + count) >= padding[:, None],
        "position_ids": lengths[:, None] + np.arange(count),
        "token_type_ids": np.zeros_like(ids),
        "use_cache_branch": np.array([past > 0]),
        "num_logits_to_keep": np.array(count),
    }


def typed(inputs: Mapping[str, Array], loaded: LoadedGraph) -> dict[str, Array]:
    """Those of `inputs` that the graph has, of its types."""
    wanted = {name: DTYPES[loaded.input_types[name]] for name in inputs if name in loaded.inputs}
    return {name: np.ascontiguousarray(inputs[name], dtype) for name, dtype in wanted.items()}
