"""Importing the runtime is quick, loads nothing heavy, and gives exactly the public names."""

from __future__ import annotations

import json
import subprocess
import sys

import edgellm

HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "onnx_ir", "huggingface_hub", "edgellm_export"}
PUBLIC = """
    Attentions ChatTemplateError ContextOverflowError DecoderResult EdgellmError EncoderDecoderModel
    EncoderDecoderResult EncoderModel EncoderResult GeneratedSequence Generation GenerationOptions GenerationSession
    InputError MemoryBudgetError MissingDependencyError Model ModelInfo OptionError OutOfMemoryError PackageCorruptError
    PackageError PackageNotFoundError PackageVersionError Piece ProviderError Score SessionCorruptError SessionError
    SessionFileError SessionMismatchError SessionNotFoundError SessionVersionError SessionWriteError TaskError Timing
    load pipeline plot_attentions
"""
IMPORT = """
import json, sys, time
start = time.process_time()
import {}
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""


def import_once(name: str = "edgellm") -> tuple[float, list[str]]:
    """Seconds of the processor, which other programs change little, and the modules that are then there."""
    seconds, modules = json.loads(subprocess.check_output([sys.executable, "-c", IMPORT.format(name)]))
    return seconds, modules


def test_import_loads_nothing_heavy() -> None:
    _, modules = import_once()
    assert not HEAVY & set(modules)


def test_import_takes_less_than_three_tenths_of_a_second() -> None:
    """0.2 as a rule, 2 to 3 times what numpy takes of it. The same machine runs at half its speed at times: then
    numpy's time says how much slower it is than those of the promise."""
    taken = [(import_once("numpy")[0], import_once("edgellm")[0]) for _ in range(5)]  # in turns: both at all its speeds
    numpy, ours = map(min, zip(*taken, strict=True))
    assert ours < max(0.3, 3.5 * numpy)


def test_public_names() -> None:
    assert edgellm.__all__ == sorted(PUBLIC.split())
    assert all(hasattr(edgellm, name) for name in edgellm.__all__)
