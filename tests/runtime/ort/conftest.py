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
    """The graph that `operator.model()` is, on `instruction_set`: None is the best, "off" ONNX Runtime's kernels."""

    def load(operator: Any, instruction_set: str | None = None, threads: int = 1) -> LoadedGraph:
        path, found = tmp_path / "operator.onnx", library()
        onnx.save(operator.model(), path)
        if instruction_set == "off" or found is None:
            return LoadedGraph(path, threads=threads, spinning=False, kernels="off")
        if instruction_set is None:
            monkeypatch.delenv("EDGELLM_KERNELS", raising=False)
        else:
            monkeypatch.setenv("EDGELLM_KERNELS", instruction_set)
        graph = LoadedGraph(path, threads=threads, spinning=False)
        assert graph.kernels == (instruction_set or found.instruction_sets[0])
        return graph

    return load
