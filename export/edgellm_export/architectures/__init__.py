"""A table of model types, each one small file. Adding a family: write its file, add its row, add its tiny config to
the tests."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import onnx_ir as ir

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader

Kind = Literal["decoder", "encoder", "encoder-decoder"]

# model_type in config.json -> module in this folder
DECODERS = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
ENCODER_DECODERS = {
    "bart": "bart",
    "marian": "marian",
    "mbart": "mbart",
    "mt5": "mt5",
    "pegasus": "pegasus",
    "t5": "t5",
}
ENCODERS = {
    "bert": "bert",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "ernie": "ernie",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
}
FAMILIES: Mapping[Kind, Mapping[str, str]] = {
    "decoder": DECODERS,
    "encoder": ENCODERS,
    "encoder-decoder": ENCODER_DECODERS,
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


def kind_of(config: Mapping[str, Any]) -> Kind:
    """Which kind of model config.json describes. Raises UnsupportedModelError or CheckpointError."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError(
            f"config.json: model_type is {model_type!r}, expected a name such as 'llama'; "
            "is this a transformers checkpoint?"
        )
    for kind, families in FAMILIES.items():
        if model_type in families:
            return kind
    known = [name for families in FAMILIES.values() for name in families]
    raise UnsupportedModelError(f"edgellm has no architecture {model_type!r}; {nearest(model_type, known)}")


def open_architecture(config: Mapping[str, Any]) -> Architecture:
    """The decoder that config.json describes. Raises UnsupportedModelError or CheckpointError."""
    reader = ConfigReader(config)
    architecture: Architecture = family(DECODERS[config["model_type"]]).parse(reader)
    reader.finish()
    return architecture


def family(module: str) -> Any:
    """A family's module, by its name in the tables."""
    return importlib.import_module(f"edgellm_export.architectures.{module}")
