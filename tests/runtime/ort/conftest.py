"""Graphs of one operator, on one instruction set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgellm.ort.kernels import library
from edgellm.ort.loaded_graph import LoadedGraph


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LoadedGraph]:
    """The graph that `operator.model()` is, on `instruction_set`: None is the best, "off" ONNX Runtime's kernels. The
    cache is `operator.kv_cache` where it has one."""

    def load(operator: Any, instruction_set: str | None = None, threads: int = 1) -> LoadedGraph:
        path, found = tmp_path / "operator.onnx", library()
        onnx.save(operator.model(), path)
        if instruction_set == "off" or found is None:
            return LoadedGraph(path, threads=threads, spinning=False, kernels="off")
        if instruction_set is None:
            monkeypatch.delenv("EDGELLM_KERNELS", raising=False)
        else:
            monkeypatch.setenv("EDGELLM_KERNELS", instruction_set)
        kv_cache = getattr(operator, "kv_cache", "auto")
        graph = LoadedGraph(path, threads=threads, spinning=False, kv_cache=kv_cache)
        assert graph.kernels == (instruction_set or found.instruction_sets[0])
        return graph

    return load
