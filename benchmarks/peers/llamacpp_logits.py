"""The logits of all positions from llama.cpp's C interface, inside xllamacpp's library: its Python one has none.

Parameter structures pass as bytes nobody here looks into, so only their default values can be used: a context of 512
tokens. They are longer than any version's, and go in by value as the last argument, which the x86-64 and arm64 calling
conventions of Linux and macOS allow.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import xllamacpp

from protocol import Settings


class Defaults(ctypes.Structure):
    _fields_ = (("content", ctypes.c_char * 1024),)


class Batch(ctypes.Structure):
    """llama_batch of llama.h."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


POINTER, INT = ctypes.c_void_p, ctypes.c_int32
SIGNATURES = {
    "llama_model_default_params": (Defaults, []),
    "llama_context_default_params": (Defaults, []),
    "llama_model_load_from_file": (POINTER, [ctypes.c_char_p, Defaults]),
    "llama_init_from_model": (POINTER, [POINTER, Defaults]),
    "llama_set_n_threads": (None, [POINTER, INT, INT]),
    "llama_n_ctx": (ctypes.c_uint32, [POINTER]),
    "llama_model_get_vocab": (POINTER, [POINTER]),
    "llama_vocab_n_tokens": (INT, [POINTER]),
    "llama_batch_init": (Batch, [INT, INT, INT]),
    "llama_batch_free": (None, [Batch]),
    "llama_decode": (INT, [POINTER, Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [POINTER, INT]),
    "llama_free": (None, [POINTER]),
    "llama_model_free": (None, [POINTER]),
}


def logits_of(settings: Settings, ids: list[int]) -> np.ndarray:
    """The logits after each token, [length, vocab] float32."""
    library = _library()
    model = library.llama_model_load_from_file(settings.model.encode(), library.llama_model_default_params())
    context = library.llama_init_from_model(model, library.llama_context_default_params())
    try:
        if len(ids) > library.llama_n_ctx(context):
            raise ValueError(f"{len(ids)} tokens; the default context holds {library.llama_n_ctx(context)}")
        library.llama_set_n_threads(context, settings.threads, settings.threads)
        _decode(library, context, ids)
        width = (library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)),)
        rows = (np.ctypeslib.as_array(library.llama_get_logits_ith(context, i), width) for i in range(len(ids)))
        return np.array([row.copy() for row in rows])
    finally:
        library.llama_free(context)
        library.llama_model_free(model)


def _library() -> ctypes.CDLL:
    (file,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(file))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _decode(library: ctypes.CDLL, context: int, ids: list[int]) -> None:
    batch = library.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if library.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
    finally:
        library.llama_batch_free(batch)
