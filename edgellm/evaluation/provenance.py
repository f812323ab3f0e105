"""What an evaluation was made of, so that it can be made again."""

from __future__ import annotations

import platform
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.evaluation.data import NAME, DataLike
from edgellm.evaluation.reference import ReferenceLike
from edgellm.loading import AnyModel
from edgellm.package.files import sha256_of
from edgellm.package.manifest import MANIFEST_NAME
from edgellm.version import __version__


def package_facts(model: AnyModel, given: ReferenceLike | None = None) -> dict[str, Any]:
    """`given`: what the user called it, where that is not the package's path."""
    info = model.info
    return {
        "path": str(given if isinstance(given, str | PathLike) else info.path),
        "model_type": info.model_type,
        "task": model.manifest.task,
        "precision": info.precision,
        "scheme": info.scheme,
        "cache": info.cache_type,
        "device": info.device,
        "threads": info.threads,
        "bytes": info.package_bytes,
        "source": dict(model.manifest.source),
        "made_with": dict(model.manifest.versions),
        "manifest_sha256": sha256_of(manifest) if (manifest := info.path / MANIFEST_NAME).is_file() else None,
    }


def data_facts(data: DataLike | None) -> dict[str, Any]:
    if isinstance(data, str | PathLike):
        path = Path(data)
        return {"file": str(path), "sha256": sha256_of(path)}
    return {"file": None, "name": NAME if data is None else "records from Python"}


def versions(model: AnyModel) -> dict[str, str]:
    return {
        "edgellm": __version__,
        "onnxruntime": model.info.onnxruntime_version,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
