"""SentencePiece models: tokenizer.model, spiece.model and other names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, MissingDependencyError
from edgellm.text.tokenizer_errors import is_whole_table

UNIGRAM, BPE = 1, 2
REMEDY = "save the tokenizer once with transformers' AutoTokenizer, which writes tokenizer.json"


def read_model(path: Path) -> Any:
    """The ModelProto in `path`. Raises CheckpointError or MissingDependencyError."""
    try:
        protobuf = import_module("google.protobuf.message")
        formats = import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError as error:
        raise MissingDependencyError(
            f"reading {path} needs sentencepiece and protobuf; run `pip install 'edgellm[export]'`"
        ) from error
    model = formats.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except protobuf.DecodeError as error:
        raise CheckpointError(f"{path} is damaged or not a SentencePiece model; download it again") from error
    table = bytes(model.normalizer_spec.precompiled_charsmap)
    if table and not is_whole_table(table):
        raise CheckpointError(f"{path} has a precompiled_charsmap that is cut off; download it again")
    return model
