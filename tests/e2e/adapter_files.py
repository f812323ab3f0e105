"""LoRA adapters as PEFT writes them, of random numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

RANK, ALPHA = 2, 3.0


def matrices(model: Any, ends: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """By module, outputs and inputs."""
    found = {n: tuple(m.weight.shape) for n, m in model.named_modules() if n.endswith(ends) and hasattr(m, "weight")}
    return {name: shape[::-1] if is_conv1d(model) else shape for name, shape in found.items()}


def is_conv1d(model: Any) -> bool:
    return bool(model.config.model_type == "gpt2")


def save_adapter(model: Any, path: Path, ends: tuple[str, ...], seed: int = 0, **keys: Any) -> dict[str, np.ndarray]:
    """A directory as PEFT writes it. Returns what it adds to each module's weight, as that is stored."""
    generator, tensors, added = np.random.default_rng(seed), {}, {}
    for name, (outputs, inputs) in matrices(model, ends).items():
        a, b = generator.normal(size=(RANK, inputs)), generator.normal(size=(outputs, RANK)) * 0.1
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.astype(np.float32)
        change = (ALPHA / math.sqrt(RANK) * (b @ a)).astype(np.float32)
        added[name] = change.T if is_conv1d(model) else change
    path.mkdir()
    save_file(tensors, path / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": True, "target_modules": list(ends),
        "base_model_name_or_path": "org/base", **keys,
    }  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(config))
    return added
