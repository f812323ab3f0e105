"""A package of a decoder, for programs that measure nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import edgellm


def load_decoder(
    package: str | Path, *, threads: int | None = None, kernels: Literal["auto", "off"] = "auto"
) -> edgellm.Model:
    """Ends the program where the package is of another kind."""
    model = edgellm.load(package, device="cpu", threads=threads, kernels=kernels)
    if not isinstance(model, edgellm.Model):
        raise SystemExit(f"{package} is for {model.manifest.task}, expected a package of a decoder")
    return model
