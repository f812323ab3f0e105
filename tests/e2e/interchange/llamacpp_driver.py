"""llama.cpp's C interface, inside xllamacpp's library, asked by the tests; parameters have their default values."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "peers"))

import numpy as np
from serving import serve

from llamacpp_logits import INT, POINTER, SIGNATURES, Batch, _library

TEXT, IDS, FLOATS = ctypes.c_char_p, ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_float)
MORE = {
    "llama_tokenize": (INT, [POINTER, TEXT, INT, IDS, INT, ctypes.c_bool, ctypes.c_bool]),
    "llama_vocab_is_eog": (ctypes.c_bool, [POINTER, INT]),
    "llama_set_embeddings": (None, [POINTER, ctypes.c_bool]),
    "llama_get_embeddings_seq": (FLOATS, [POINTER, INT]),
    "llama_get_embeddings_ith": (FLOATS, [POINTER, INT]),
    "llama_model_n_embd": (INT, [POINTER]),
    "llama_encode": (INT, [POINTER, Batch]),
    "llama_log_set": (None, [POINTER, POINTER]),
}
MOST = 4096  # tokens of a text
SILENT = ctypes.CFUNCTYPE(None, INT, TEXT, POINTER)(lambda *_: None)


class Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h, up to what turns blocks into numbers."""

    _fields_ = (
        ("type_name", TEXT),
        ("block", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, POINTER, FLOATS, ctypes.c_int64)),
    )


@cache
def library() -> ctypes.CDLL:
    found = _library()
    more = {"ggml_get_type_traits": (ctypes.POINTER(Traits), [INT])}
    for name, (result, arguments) in (SIGNATURES | MORE | more).items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.llama_log_set(SILENT, None)
    return found


@contextmanager
def opened(model: str) -> Iterator[SimpleNamespace]:
    """The library with a model, its vocabulary and a context for it."""
    lib = library()
    loaded = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
    if not loaded:
        raise ValueError(f"llama.cpp does not load {model}")
    context = lib.llama_init_from_model(loaded, lib.llama_context_default_params())
    lib.llama_set_n_threads(context, 1, 1)
    vocabulary = lib.llama_model_get_vocab(loaded)
    try:
        yield SimpleNamespace(lib=lib, model=loaded, context=context, vocabulary=vocabulary)
    finally:
        lib.llama_free(context)
        lib.llama_model_free(loaded)


def tokens(model: str, texts: list[str], parse_special: bool) -> list[list[int]]:
    """With the tokens around a text."""
    with opened(model) as m:
        space = (ctypes.c_int32 * MOST)()
        found = []
        for text in texts:
            raw = text.encode()
            count = m.lib.llama_tokenize(m.vocabulary, raw, len(raw), space, MOST, True, parse_special)
            found.append(list(space[:count]))
        return found


def endings(model: str, size: int) -> list[int]:
    with opened(model) as m:
        return [index for index in range(size) if m.lib.llama_vocab_is_eog(m.vocabulary, index)]


def logits(model: str, ids: list[int], source: list[int] | None = None) -> list[list[float]]:
    """After each token. source: what an encoder-decoder reads first."""
    with opened(model) as m:
        if source is not None:
            _run(m.lib.llama_encode, m.context, source)
        _run(m.lib.llama_decode, m.context, ids)
        width = m.lib.llama_vocab_n_tokens(m.vocabulary)
        return [m.lib.llama_get_logits_ith(m.context, i)[:width] for i in range(len(ids))]


def embeddings(model: str, inputs: list[list[int]], pooled: bool, decoder: bool = False) -> list[list]:
    """The vector of each input, or the states of its tokens. decoder: what the model is."""
    found = []
    for ids in inputs:
        with opened(model) as m:
            m.lib.llama_set_embeddings(m.context, True)
            _run(m.lib.llama_decode if decoder else m.lib.llama_encode, m.context, ids)
            width = m.lib.llama_model_n_embd(m.model)
            if pooled:
                found.append(m.lib.llama_get_embeddings_seq(m.context, 0)[:width])
            else:
                found.append([m.lib.llama_get_embeddings_ith(m.context, i)[:width] for i in range(len(ids))])
    return found


def dequantized(kind: int, blocks: str) -> list[float]:
    """The numbers in blocks, given in hexadecimal, of a type."""
    traits, raw = library().ggml_get_type_traits(kind).contents, bytes.fromhex(blocks)
    count = len(raw) // traits.size * traits.block
    numbers = (ctypes.c_float * count)()
    traits.to_float(raw, numbers, count)
    return list(numbers)


def _run(function: object, context: int, ids: list[int]) -> None:
    lib = library()
    batch = lib.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if function(context, batch):
            raise RuntimeError("llama.cpp did not compute")
    finally:
        lib.llama_batch_free(batch)


if __name__ == "__main__":
    np.seterr(all="ignore")
    serve(
        {"tokens": tokens, "endings": endings, "logits": logits, "embeddings": embeddings, "dequantized": dequantized}
    )
