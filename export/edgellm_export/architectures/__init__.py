"""A table of model types, each one small file. Adding a family: write its file, add its row, add its tiny config to
the tests."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import onnx_ir as ir

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.build import BatchState, Build, DecoderShape, LayerCache, Stream
from edgellm_export.config import ConfigReader

# model_type in config.json -> module in this folder
FAMILIES = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}


class Architecture(Protocol):
    """A decoder-only family with its config: adds its nodes piece by piece, so that pieces can also run on their
    own."""

    @property
    def shape(self) -> DecoderShape: ...

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        """input_ids: [B, S] int64. Returns the stream [B, S, hidden]."""

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        """One transformer layer. Returns the stream and the present cache."""

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        """The stream, already cut to the wanted positions, normed."""

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        """Logits [B, K, vocab] of the normed hidden states [B, K, hidden]."""


def open_architecture(config: Mapping[str, Any]) -> Architecture:
    """The architecture that config.json describes. Raises UnsupportedModelError or CheckpointError."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError(
            f"config.json: model_type is {model_type!r}, expected a name such as 'llama'; "
            "is this a transformers checkpoint?"
        )
    if model_type not in FAMILIES:
        raise UnsupportedModelError(f"edgellm has no architecture {model_type!r}; {nearest(model_type, FAMILIES)}")
    module = importlib.import_module(f"edgellm_export.architectures.{FAMILIES[model_type]}")
    reader = ConfigReader(config)
    architecture: Architecture = module.parse(reader)
    reader.finish()
    return architecture
