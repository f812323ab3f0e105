"""A package of a decoder, for programs that measure nothing else."""

from __future__ import annotations

from pathlib import Path

import edgellm


def load_decoder(package: str | Path, *, threads: int | None = None) -> edgellm.Model:
    """Ends the program where the package is of another kind."""
    model = edgellm.load(package, device="cpu", threads=threads)
    if not isinstance(model, edgellm.Model):
        raise SystemExit(f"{package} is for {model.manifest.task}, expected a package of a decoder")
    return model
