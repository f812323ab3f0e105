"""A decoder's graph with its inputs and outputs tied to memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.in_place.cache import KVCache
from edgellm.ort.binding import DTYPES, AnyArray, Binding, DeviceArray
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import GraphFile
from edgellm.types import IntArray, Logits, TokenArray


class BoundDecoder:
    """Bound once for a kind of call, and again only where something changed. `mask`: the input that counts each row's
    tokens. `gives_last_only`: the graph of another tool that gives one position's logits, whatever it reads."""

    def __init__(self, loaded: LoadedGraph, graph: GraphFile, vocab_size: int, *, mask: str = "attention_mask") -> None:
        self._binding: Binding = loaded.bind()
        self._vocab_size = vocab_size
        self._logits_dtype: np.dtype[Any] = DTYPES[loaded.output_types["logits"]]
        self._has_keep = "logits_to_keep" in graph.inputs
        self.gives_last_only = not self._has_keep and loaded.output_shapes["logits"][1] == 1
        self._mask_name = mask
        self._mask = AttentionMask()
        self._bound: tuple[int, range] | None = None  # cache version and rows
        self._keep = 1
        self._fetched = False
        self._ids: TokenArray = np.empty((0, 0), np.int64)
        self._logits: npt.NDArray[Any] = np.empty((0, 1, vocab_size), self._logits_dtype)

    def bind(self, name: str, tensor: AnyArray) -> None:
        """One of the graph's own inputs, until it is bound anew."""
        if isinstance(tensor, DeviceArray):
            self._binding.device_input(name, tensor)
        else:
            self._binding.input(name, tensor)

    def run(
        self, cache: KVCache, ids: TokenArray, lengths: Sequence[int], *, row: int | None = None, keep: int = 1
    ) -> Logits:
        """[rows, vocab] float32 of the last position, until the next run; or [keep, vocab] of a single row.

        ids: [rows, tokens], the last of `lengths` tokens of each row: of the cache's first rows, or of its row `row`.
        """
        binding = self._binding
        rows = range(len(ids)) if row is None else range(row, row + 1)
        if self._bound != (cache.version, rows):
            cache.bind(binding, rows)
            self._bound = (cache.version, rows)
        if not binding.in_place or self._ids.shape != ids.shape:
            self._ids = np.array(ids)
            binding.input("input_ids", self._ids)
        self._ids[...] = ids
        binding.input_at(self._mask_name, *self._mask.of(lengths))
        self._bind_logits(ids.shape, keep)
        binding.run()
        logits = binding.fetch("logits")[0, -keep:] if self._fetched else self._logits[:, 0]
        return logits.astype(np.float32, copy=False)

    def _bind_logits(self, ids: tuple[int, ...], keep: int) -> None:
        """One position per row goes to memory of ours. More are fetched: our graphs declare one. Graphs of other tools
        give every position, also where only the last is wanted."""
        rows, tokens = ids
        if self._has_keep and keep != self._keep:
            self._binding.input("logits_to_keep", np.array([keep], np.int64))
        fetched = keep > 1 or (tokens > 1 and not self._has_keep and not self.gives_last_only)
        if fetched:
            self._binding.new_output("logits")
        elif len(self._logits) != rows or self._fetched:
            self._logits = np.empty((rows, 1, self._vocab_size), self._logits_dtype)
            self._binding.output("logits", self._logits)
        self._keep, self._fetched = keep, fetched


class AttentionMask:
    """[rows, longest] int64: ones for each row's tokens, then zeros. Equal lengths, the usual case, cost nothing."""

    def __init__(self) -> None:
        self._ones: IntArray = np.ones(0, np.int64)
        self._address = 0

    def of(self, lengths: Sequence[int]) -> tuple[IntArray, int]:
        """The mask and the address of its first byte."""
        total = max(lengths)
        if min(lengths) != total:
            mask = (np.arange(total) < np.array(lengths)[:, None]).astype(np.int64)
            return mask, mask.ctypes.data
        size = total * len(lengths)
        if size > len(self._ones):
            self._ones = np.ones(2 * size, np.int64)
            self._address = self._ones.ctypes.data
        return self._ones[:size].reshape(len(lengths), total), self._address
