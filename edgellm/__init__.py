"""edgellm: quantized Transformer packages on ONNX Runtime, with its own decoders and KV cache.

    import edgellm
    model = edgellm.load("smollm2-int8")
    print(model.generate("The capital of France is").text)

ONNX Runtime itself is imported by `load`, with its telemetry off.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # must be there before anybody imports onnxruntime

from edgellm.decoding.options import GenerationOptions
from edgellm.errors import (
    ChatTemplateError,
    ContextOverflowError,
    EdgellmError,
    InputError,
    MemoryBudgetError,
    MissingDependencyError,
    OptionError,
    OutOfMemoryError,
    PackageCorruptError,
    PackageError,
    PackageNotFoundError,
    PackageVersionError,
    ProviderError,
    SessionCorruptError,
    SessionError,
    SessionFileError,
    SessionMismatchError,
    SessionNotFoundError,
    SessionVersionError,
    SessionWriteError,
    TaskError,
)
from edgellm.generation.results import GeneratedSequence, Generation, ModelInfo, Piece, Score, Timing
from edgellm.loading import load
from edgellm.models.attentions import Attentions, DecoderResult, EncoderDecoderResult, plot_attentions
from edgellm.models.decoder import Model
from edgellm.models.encoder import EncoderModel, EncoderResult
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.models.speech import SpeechModel
from edgellm.pipelines import pipeline
from edgellm.sessions.generation_session import GenerationSession
from edgellm.speech.results import Transcription
from edgellm.version import __version__ as __version__

__all__ = [
    "Attentions", "ChatTemplateError", "ContextOverflowError", "DecoderResult", "EdgellmError", "EncoderDecoderModel",
    "EncoderDecoderResult", "EncoderModel", "EncoderResult", "GeneratedSequence", "Generation", "GenerationOptions",
    "GenerationSession", "InputError", "MemoryBudgetError", "MissingDependencyError", "Model", "ModelInfo",
    "OptionError", "OutOfMemoryError", "PackageCorruptError", "PackageError", "PackageNotFoundError",
    "PackageVersionError", "Piece", "ProviderError", "Score", "SessionCorruptError", "SessionError", "SessionFileError",
    "SessionMismatchError", "SessionNotFoundError", "SessionVersionError", "SessionWriteError", "SpeechModel",
    "TaskError", "Timing", "Transcription", "load", "pipeline", "plot_attentions",
]  # fmt: skip
