"""What is exported: a Hugging Face checkpoint (directory or hub id) or a GGUF file, opened without torch.

Weights stay on disk until a slice of rows is asked for, so opening costs memory for names and shapes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm_export.checkpoint.accounting import TensorReader
from edgellm_export.checkpoint.tensors import LazyTensor

__all__ = ["Checkpoint", "TensorReader"]


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with Hugging Face's names and layouts; GGUF files are translated to them.

    `config` is config.json. `files` are the text files that belong in a package: tokenizer.json, tokenizer_config.json,
    special_tokens_map.json, chat_template.jinja, generation_config.json, as far as the checkpoint has them. `source` is
    provenance for the manifest and never holds an absolute path; `directory` is where the checkpoint lies, None for a
    GGUF file. `steps` are the tensors of the layers behind a sentence encoder's model, whose names begin with that of
    their directory.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]
    files: Mapping[str, bytes]
    source: Mapping[str, Any]
    directory: Path | None = None
    steps: Mapping[str, LazyTensor] = field(default_factory=dict)
