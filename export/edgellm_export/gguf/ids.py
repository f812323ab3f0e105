"""Ids and flags of a GGUF file's tokenizer, with llama.cpp's defaults where the file says nothing."""

from __future__ import annotations

from collections.abc import Mapping

from edgellm.errors import UnsupportedModelError
from edgellm_export.gguf.reader import GgufFile

PREFIX = "tokenizer.ggml."
ENCODERS = ("bert", "modern-bert", "nomic-bert")  # architectures whose vocabulary has special tokens of a text's ends
# By the kind of tokenizer, the ids of the tokens that a file does not name.
DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gpt2": {},
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "bert": {"bos": 101, "seperator": 102, "unknown": 100, "padding": 0, "mask": 103},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
}


def kind_of(file: GgufFile) -> str:
    """The kind of tokenizer. Raises UnsupportedModelError."""
    model = file.metadata.get(f"{PREFIX}model")
    if not isinstance(model, str) or model not in DEFAULTS:
        raise UnsupportedModelError(
            f"{file.path} has a tokenizer of type {model!r}, expected {', '.join(DEFAULTS)}; "
            "export the Hugging Face checkpoint"
        )
    return model


def token_id(file: GgufFile, name: str, size: int) -> int | None:
    """A special token's id. One outside the vocabulary, of `size` tokens, counts as absent, as in llama.cpp."""
    given = file.metadata.get(f"{PREFIX}{name}_token_id")
    for index in (given, DEFAULTS[kind_of(file)].get(name)):
        if type(index) is int and 0 <= index < size:
            return index
    return None


def flag(file: GgufFile, name: str, default: bool) -> bool:
    value = file.metadata.get(f"{PREFIX}{name}", default)
    return value != 0 if isinstance(value, int) else default
