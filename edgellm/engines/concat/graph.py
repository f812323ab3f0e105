"""Decoder graphs that concatenate their cache, as optimum writes them: how they are run, and what they can do.

Such graphs come from many versions of many tools, so what they can be asked for is found out by asking them. A graph
that was traced with a single token behind a past may see the future when it gets several; one without position ids
may count a shorter row's padding; one whose activations share a scale mixes its rows. Each ability is a comparison of
two ways to compute the same logits, made when it first matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.checks import check_graphs, lacks_graphs
from edgellm.engines.concat.cache import ConcatCache
from edgellm.errors import ProviderError
from edgellm.ort.session import LoadSettings, Session
from edgellm.ort.tensor_types import DTYPES
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import Array, Logits, TokenArray

# Logits that two ways of computing give agree when they differ by less than this share of the largest.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "int8": 1e-2}
INPUTS = (
    "input_ids", "attention_mask", "position_ids", "token_type_ids", "use_cache_branch", "num_logits_to_keep",
)  # fmt: skip


def open_concat_graph(package: Path, manifest: Manifest[DecoderFacts], settings: LoadSettings) -> ConcatGraph:
    """The graph "model" of a package, or "first" and "later". Raises PackageCorruptError where one of them lacks what
    the manifest promises."""
    if manifest.graphs.keys() not in ({"model"}, {"first", "later"}):
        raise lacks_graphs(manifest, "a graph, or two called first and later")
    sessions = {name: settings.open(package / graph.file, fuse=True) for name, graph in manifest.graphs.items()}
    check_graphs(sessions, manifest, dict.fromkeys(sessions, INPUTS))
    first, later = (sessions.get(name) or sessions["model"] for name in ("first", "later"))
    return ConcatGraph(first, later, manifest)


class ConcatGraph:
    """Runs rows and their past through the graph. `first`: the session for rows without a past, `later` for the others,
    which are one and the same unless the package has a graph for each. Several engines may share it."""

    def __init__(self, first: Session, later: Session, manifest: Manifest[DecoderFacts]) -> None:
        self.session = first
        self.layout = manifest.model.cache
        self.vocab_size = manifest.vocab_size
        self._first, self._later = first, later

    def run(self, cache: ConcatCache, rows: Sequence[int], ids: TokenArray) -> Logits:
        """Append ids [rows, tokens] to some rows of the cache. Returns [rows, tokens, vocab] float32."""
        block = cache.together(rows)
        session = self._later if block.length else self._first
        lengths = np.array([cache.lengths[row] for row in rows], np.int64)
        feeds: dict[str, Any] = typed(_inputs(ids, lengths, block.length), session)
        pasts = [past for past, _ in cache.names]
        feeds |= {name: past for name, past in zip(pasts, block.tensors, strict=True) if name in session.inputs}
        logits, *presents = session.run(feeds, ["logits", *(present for _, present in cache.names)])
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

    @cached_property
    def takes_batches(self) -> bool:
        """Whether rows of one length get the same logits together as each by itself."""
        return self._rows_agree([3, 3])

    @cached_property
    def takes_lengths(self) -> bool:
        """The same for rows of different lengths."""
        return self._rows_agree([1, 4])

    def _rows_agree(self, lengths: Sequence[int]) -> bool:
        tokens = self._tokens(sum(lengths) + len(lengths))
        prompts = np.split(tokens[len(lengths) :], np.cumsum(lengths)[:-1])
        new = tokens[: len(lengths), None]

        def read() -> ConcatCache:
            cache = self._cache(len(lengths))
            for row, prompt in enumerate(prompts):
                self.run(cache, [row], prompt[None])
            return cache

        def apart() -> Logits:
            cache = read()
            return np.concatenate([self.run(cache, [row], new[row : row + 1]) for row in range(cache.rows)])

        return agree(apart, lambda: self.run(read(), range(len(lengths)), new), self.layout.dtype)

    def _cache(self, rows: int) -> ConcatCache:
        cache = ConcatCache(self.layout)
        cache.reset(rows)
        return cache

    def _tokens(self, count: int) -> TokenArray:
        """Different ones, from all over the vocabulary."""
        return np.linspace(self.vocab_size - 1, 0, count).astype(np.int64)


def agree(one_way: Callable[[], Logits], other_way: Callable[[], Logits], dtype: str) -> bool:
    """Whether two ways to compute the same give the same. What a graph refuses to compute is nothing that it can do;
    that it computes anything shows elsewhere."""
    expected = one_way()
    try:
        found = other_way()
    except ProviderError:
        return False
    limit = TOLERANCE[dtype] * float(np.abs(expected).max())
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= limit)


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


def typed(inputs: Mapping[str, Array], session: Session) -> dict[str, Array]:
    """Those of `inputs` that the graph has, of its types."""
    wanted = {name: DTYPES[session.input_types[name]] for name in inputs if name in session.inputs}
    return {name: np.ascontiguousarray(inputs[name], dtype) for name, dtype in wanted.items()}
