"""The libraries of the `eval` extra, imported when a score needs them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from edgellm.errors import MissingDependencyError

DISTRIBUTIONS = {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score"}


def library(name: str) -> Any:
    """A module of one of DISTRIBUTIONS. Raises MissingDependencyError."""
    try:
        return import_module(name)
    except ImportError as error:
        package = DISTRIBUTIONS[name.partition(".")[0]]
        raise MissingDependencyError(
            f"this evaluation needs {package}, which is not installed ({error}); run `pip install edgellm[eval]`"
        ) from error


def version_of(name: str) -> str:
    return version(DISTRIBUTIONS[name])
