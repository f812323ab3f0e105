"""A GGUF file as the Hugging Face checkpoint its weights describe, so that peers with no GGUF reader get the same
model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.numpy import save_file

from edgellm_export.sources.opening import open_checkpoint


def write_hf_checkpoint(gguf: Path, out: Path) -> Path:
    """Write float32 safetensors, config and tokenizer of `gguf` to `out`, unless they are there already."""
    if (out / "config.json").is_file():
        return out
    checkpoint = open_checkpoint(str(gguf))
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: t.rows(0, t.shape[0]) for name, t in checkpoint.tensors.items()},
        out / "model.safetensors",
        {"format": "pt"},
    )
    for name, content in checkpoint.files.items():
        (out / name).write_bytes(content)
    (out / "config.json").write_text(json.dumps(dict(checkpoint.config), indent=2))
    return out


if __name__ == "__main__":
    write_hf_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))
