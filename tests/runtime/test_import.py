"""Importing the runtime loads nothing heavy, and gives exactly the public names."""

from __future__ import annotations

import subprocess
import sys

import edgellm

LIGHT = {"numpy", "tokenizers", "jinja2", "markupsafe"}  # how long it takes: benchmarks/memory.py
PUBLIC = """
    Attentions ChatTemplateError ContextOverflowError DecoderResult EdgellmError EncoderDecoderModel
    EncoderDecoderResult EncoderModel EncoderResult GeneratedSequence Generation GenerationOptions GenerationSession
    InputError MemoryBudgetError MissingDependencyError Model ModelInfo OptionError OutOfMemoryError PackageCorruptError
    PackageError PackageNotFoundError PackageVersionError Piece ProviderError Score SessionCorruptError SessionError
    SessionFileError SessionMismatchError SessionNotFoundError SessionVersionError SessionWriteError SpeechModel
    TaskError Timing Transcription load pipeline plot_attentions
"""
IMPORT = """
import sys
before = set(sys.modules)
import edgellm
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(names - sys.stdlib_module_names - {"edgellm"}))
"""


def test_import_loads_nothing_heavy() -> None:
    imported = subprocess.check_output([sys.executable, "-c", IMPORT], text=True)
    assert set(imported.split()) <= LIGHT


def test_public_names() -> None:
    assert edgellm.__all__ == sorted(PUBLIC.split())
    assert all(hasattr(edgellm, name) for name in edgellm.__all__)
