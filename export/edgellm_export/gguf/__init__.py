"""GGUF files (llama.cpp's format), translated to what Hugging Face has for the same model."""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.files import sha256_of
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.gguf.config import translate_config
from edgellm_export.gguf.names import translate_tensors
from edgellm_export.gguf.reader import GgufFile, read_gguf
from edgellm_export.gguf.tensors import check_types, type_names
from edgellm_export.gguf.tokenizer import read_vocabulary, token_ids, tokenizer_files


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in a GGUF file. Raises CheckpointError for a damaged file, UnsupportedModelError for what is not
    translated."""
    file = read_gguf(path)
    arch = _architecture(file)
    config = translate_config(file, arch)
    check_types(file.tensors)
    vocabulary = read_vocabulary(file)
    if len(vocabulary.tokens) > config["vocab_size"]:
        raise CheckpointError(
            f"{path} has {len(vocabulary.tokens)} tokens but embeds {config['vocab_size']}; download it again"
        )
    config |= token_ids(file, vocabulary)
    return Checkpoint(
        config=config,
        tensors=translate_tensors(file, arch, config),
        files=tokenizer_files(file, vocabulary, config),
        source={
            "kind": "gguf",
            "name": path.name,
            "format": "gguf",
            "dtypes": type_names(file.tensors.values()),
            "sha256": {path.name: sha256_of(path)},
        },
    )


def _architecture(file: GgufFile) -> str:
    arch = file.metadata.get("general.architecture")
    if not isinstance(arch, str):
        raise CheckpointError(f"{file.path} does not say its architecture; is it a language model?")
    parts = file.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedModelError(f"{file.path} is one of {parts} parts; join them with llama-gguf-split --merge")
    return arch
