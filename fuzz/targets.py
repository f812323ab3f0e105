"""The targets: what directory an input stands for, and which parser reads it."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.package.manifest import MANIFEST_NAME
from edgellm.sessions.header import FORMAT_VERSION, MAGIC, aligned
from edgellm_export.sources.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from fuzz import parsers
from fuzz.corpus import PARTS
from fuzz.gguf_bytes import gguf_bytes, gguf_parts
from fuzz.http_text import request
from fuzz.parsers import CONFIG, CONSTRAINT, GRAPH, PYTORCH, REQUEST, SUFFIXES, TENSORFLOW, WEIGHTS
from fuzz.quantized_files import quantized_files
from fuzz.weight_files import behind_one_another, hdf5_bytes, zipped

INDEX = "model.safetensors.index.json"
SERVER_BYTES = 32 << 20  # keys and values of all rows
PATH = re.compile(r"/[!-~]{0,60}")
NAMES = {
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "genai_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
}
PRELUDE, SESSION_BYTES = 48, 64 + 64 + 32  # of 2 tokens: their ids, keys and values, each from a multiple of 64 on

Files = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """A parser and its inputs. `files` makes the directory that an input stands for; `parse` does with it what a user's
    command would, and lets every exception through. Where `is_json`, inputs are damaged as JSON, not as bytes. `share`
    are the target's parts of a run's inputs. `base_bytes` of memory any input may take."""

    name: str
    files: Callable[[bytes], Files]
    parse: Callable[[Path], None]
    is_json: bool = False
    share: int = 1
    base_bytes: int = 4 << 20


def parts_of(beside: Sequence[str]) -> Files:
    return {place: (PARTS / part).read_bytes() for place, part in (pair.split("=") for pair in beside)}


def one_file(name: str, *beside: str) -> Callable[[bytes], Files]:
    """The input is the file `name`; `beside` it are parts, as "name in the directory=name of the part"."""
    fixed = parts_of(beside)
    return lambda data: {**fixed, name: data}


def several_files(*beside: str) -> Callable[[bytes], Files]:
    """The input is JSON of {name: JSON or text}. Names are plain ones, as a directory has them."""
    fixed = parts_of(beside)
    return lambda data: fixed | {name: _content(value) for name, value in _object(data).items() if name in NAMES}


def header_and_data(header: bytes) -> Files:
    return {WEIGHTS: len(header).to_bytes(8, "little") + header + bytes(4096)}


def adapter_files(data: bytes) -> Files:
    """The input is JSON: of adapter_config.json and of the header of its tensors."""
    content = _object(data)
    (weights,) = header_and_data(_content(content.get("header", {}))).values()
    return {ADAPTER_CONFIG: _content(content.get("config", {})), ADAPTER_WEIGHTS: weights}


LLAMA, T5 = b'{"model_type": "llama"}', b'{"model_type": "t5"}'


def saved_session(header: bytes) -> Files:
    """A header with zeros for the arrays of SESSION behind it."""
    text = header.ljust(aligned(PRELUDE + len(header)) - PRELUDE)
    prelude = struct.pack("<8sII32s", MAGIC, FORMAT_VERSION, len(text), hashlib.sha256(text).digest())
    return {"session.kv": prelude + text + bytes(SESSION_BYTES)}


def http_body(data: bytes) -> Files:
    """The input is JSON of {"path": ..., "body": ...}, as a request; what is not JSON is the body of one."""
    content = _object(data)
    path, body = content.get("path"), content.get("body")
    place = path if isinstance(path, str) and PATH.fullmatch(path) else "/v1/chat/completions"
    return {REQUEST: request(place, _content(body) if content else data)}


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("safetensors", one_file(WEIGHTS), parsers.safetensors_file, share=4),
        Target("safetensors_header", header_and_data, parsers.safetensors_file, is_json=True, share=6),
        Target(
            "safetensors_index",
            one_file(INDEX, f"{CONFIG}=llama.json", "model-1.safetensors=shard", "model-2.safetensors=shard"),
            parsers.checkpoint,
            is_json=True,
            share=1,
        ),
        Target("quantized", lambda data: quantized_files(_object(data)), parsers.quantized, is_json=True, share=4),
        Target("adapter", adapter_files, parsers.adapter, is_json=True, share=4),
        Target(
            "pytorch_index",
            one_file(f"{PYTORCH}.index.json", f"{CONFIG}=llama.json", "model-1.bin=torch", "model-2.bin=torch"),
            parsers.checkpoint,
            is_json=True,
            share=1,
        ),
        Target("pytorch_pickle", lambda data: {PYTORCH: zipped(data)}, parsers.pytorch_file, share=8),
        Target("pytorch_zip", one_file(PYTORCH), parsers.pytorch_file, share=3),
        Target("pytorch_old", lambda data: {PYTORCH: behind_one_another(data)}, parsers.pytorch_file, share=3),
        Target(
            "tensorflow_layout",
            lambda data: {TENSORFLOW: hdf5_bytes(_object(data))},
            parsers.tensorflow_file,
            is_json=True,
            share=1,
        ),
        Target("weight_choice", one_file(CONFIG), parsers.weight_choice, is_json=True, share=1),
        Target("gguf", one_file("model.gguf"), parsers.gguf_file, share=2),
        Target(
            "gguf_metadata",
            lambda data: {"model.gguf": gguf_bytes(_object(data))},
            parsers.gguf_file,
            is_json=True,
            share=3,
        ),
        Target("gguf_parts", lambda data: gguf_parts(_object(data)), parsers.gguf_parts, is_json=True, share=2),
        Target("config", one_file(CONFIG), parsers.config, is_json=True, share=6),
        Target("text_files", several_files(), parsers.text_files, is_json=True, share=2),
        Target(
            "sentencepiece",
            lambda data: {
                f"llama/{CONFIG}": LLAMA,
                "llama/tokenizer.model": data,
                f"t5/{CONFIG}": T5,
                "t5/spiece.model": data,
            },
            parsers.sentencepiece_models,
            share=1,
        ),
        Target("tokenizer", one_file("tokenizer.json"), parsers.tokenizer, is_json=True, share=5),
        Target("tokenizer_config", one_file("tokenizer_config.json"), parsers.chat, is_json=True, share=1),
        Target("chat_template", one_file("chat_template.jinja"), parsers.chat, share=2),
        Target("manifest", one_file(MANIFEST_NAME, f"{GRAPH}=empty"), parsers.manifest, is_json=True, share=3),
        Target(
            "generation_config", one_file("generation_config.json"), parsers.generation_config, is_json=True, share=4
        ),
        Target("onnx", one_file(GRAPH), parsers.onnx, share=4),
        Target(
            "foreign_graph",
            one_file(GRAPH, f"{CONFIG}=foreign.json", "model.onnx_data=empty"),
            parsers.foreign,
            share=1,
        ),
        Target("foreign_files", several_files(f"{GRAPH}=decoder.onnx"), parsers.foreign, is_json=True, share=1),
        Target("genai_files", several_files(f"{GRAPH}=decoder.onnx"), parsers.foreign, is_json=True, share=1),
        Target("session", one_file("session.kv"), parsers.session, share=3),
        Target("session_header", saved_session, parsers.session, is_json=True, share=3),
        Target(
            "evaluation_data",
            lambda data: {f"data{suffix}": data for suffix in SUFFIXES},
            parsers.evaluation_data,
            share=3,
        ),
        Target("sentence_encoder", several_files(), parsers.sentence_encoder, is_json=True, share=2),
        Target("http_request", one_file(REQUEST), parsers.http_request, share=2, base_bytes=SERVER_BYTES),
        Target("http_body", http_body, parsers.http_request, is_json=True, share=2, base_bytes=SERVER_BYTES),
        Target("constraint", one_file(CONSTRAINT), parsers.constraint, is_json=True, share=2, base_bytes=SERVER_BYTES),
    )
}


def _object(data: bytes) -> dict[str, Any]:
    """What is no JSON object counts as an empty one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _content(value: Any) -> bytes:
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (ValueError, RecursionError):  # too long a number, too deep a list
        text = "null"
    return text.encode("utf-8", "surrogatepass")
