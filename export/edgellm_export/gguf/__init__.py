"""GGUF files (llama.cpp's format), translated to what Hugging Face has for the same model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.files import sha256_of
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.gguf.config import translate_config
from edgellm_export.gguf.encoder_config import pooling_of
from edgellm_export.gguf.generation import token_ids
from edgellm_export.gguf.ids import ENCODERS
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.sentence import Sentences, sentence_files
from edgellm_export.gguf.shards import read_model
from edgellm_export.gguf.tensors import check_types, type_names
from edgellm_export.gguf.tokenizer import read_vocabulary, tokenizer_files
from edgellm_export.gguf.translation import dense_steps, translate_tensors

QUANTIZATION = 2
VISION = ("v.", "mm.", "a.")


def open_gguf(path: Path, source: Mapping[str, Any] | None = None, *, hashes: bool = True) -> Checkpoint:
    """The checkpoint in a GGUF file, or in the parts of which it is one. `source`: what is known of its origin. Without
    `hashes`, those of the files are left out, which takes reading all of them.

    Raises CheckpointError for a damaged file, UnsupportedModelError for what is not translated.
    """
    file = read_model(path)
    arch = _architecture(file)
    check_types(file.tensors)
    config = translate_config(file, arch)
    vocabulary = read_vocabulary(file)
    if len(vocabulary.tokens) > config["vocab_size"]:
        raise CheckpointError(
            f"{path} has {len(vocabulary.tokens)} tokens but embeds {config['vocab_size']}; download it again"
        )
    config |= token_ids(file, vocabulary) if arch not in ENCODERS else {}
    steps = dense_steps(file) if arch == "gemma-embedding" else {}
    paths = sorted({file.path, *(tensor.path for tensor in file.tensors.values())})
    return Checkpoint(
        config=config,
        tensors=translate_tensors(file, config),
        files=tokenizer_files(file, vocabulary, config) | _sentence_files(file, arch, config, steps),
        steps={f"{path}.linear.weight": tensor for path, tensor in steps.items()},
        source={
            "kind": "gguf",
            "name": file.path.name,
            **(source or {}),
            "format": "gguf",
            "dtypes": type_names(file.tensors.values()),
            "sha256": {shard.name: sha256_of(shard) for shard in paths} if hashes else {},
        },
    )


def _architecture(file: GgufFile) -> str:
    """The name of the architecture. Raises CheckpointError, or UnsupportedModelError for files that are no model."""
    arch, kind = file.fact("general.architecture"), file.fact("general.type", "model")
    if not isinstance(arch, str):
        raise CheckpointError(f"{file.path} does not say its architecture; is it a language model?")
    if arch == "clip" or kind == "mmproj":
        raise UnsupportedModelError(
            f"{file.path} is the part of a multimodal model that reads images or sounds; give the file beside it, "
            "which holds the language model, and of which edgellm builds the text part"
        )
    if kind != "model":
        raise UnsupportedModelError(f"{file.path} is not a model ({kind}); give the file of the model")
    if any(name.startswith(VISION) for name in file.tensors):
        raise UnsupportedModelError(
            f"{file.path} holds a model of images beside the language model; edgellm builds text models: use a file "
            "that llama.cpp made, which has the text part alone"
        )
    version = file.fact("general.quantization_version", QUANTIZATION)
    if version != QUANTIZATION:
        raise UnsupportedModelError(
            f"{file.path} has quantization version {version!r}, expected {QUANTIZATION}; quantize it again"
        )
    return arch


def _sentence_files(
    file: GgufFile, arch: str, config: Mapping[str, Any], steps: Mapping[str, LazyTensor]
) -> dict[str, bytes]:
    pooling, longest = pooling_of(file, arch), file.metadata.get(f"{arch}.context_length")
    if pooling is None or type(longest) is not int:
        return {}
    dense = {path: (tensor.shape[0], tensor.shape[1]) for path, tensor in steps.items()}
    return sentence_files(Sentences(pooling, longest, dense), config)
