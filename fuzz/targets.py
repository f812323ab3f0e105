"""The parsers under test: what a damaged file does is seen where a user would meet it, in a directory with others.

A target opens the directory as a command would, and then uses what came back as far as the next step of an export or a
load does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from edgellm.decoding import GenerationOptions
from edgellm.errors import EdgellmError
from edgellm.evaluation.data import Columns, open_data
from edgellm.foreign import is_foreign, read_foreign
from edgellm.package.files import check_files, read_manifest
from edgellm.package.json_file import read_json
from edgellm.package.manifest import MANIFEST_NAME, EncoderFacts
from edgellm.package.onnx_file import read_graph
from edgellm.package.sentence import read_embedding
from edgellm.sessions.file import open_file
from edgellm.sessions.header import FORMAT_VERSION, MAGIC, StoredCache, aligned
from edgellm.text.chat import ChatTemplate
from edgellm.text.tokenizer import Tokenizer
from edgellm_export.architectures import DECODERS, ENCODER_DECODERS, ENCODERS, family, kind_of
from edgellm_export.checkpoint import json_file
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.safetensors import read_safetensors
from edgellm_export.sources.opening import open_checkpoint
from edgellm_export.tokenizer.files import read_text_files
from fuzz.corpus import PARTS
from fuzz.gguf_bytes import gguf_bytes

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "It scatters <light>.", "tool_calls": [{"name": "f", "arguments": {"a": [1]}}]},
    {"role": "user", "content": [{"type": "text", "text": "And at dusk?"}]},
]
TOOLS = [{"name": "f", "parameters": {"type": "object"}}]
TEXTS = ("The sky, at 12 o'clock.", "  naïve 中国 🙂\n\t<s>", "x" * 40)
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GRAPH = "model.onnx"
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

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
SESSION = StoredCache(num_layers=1, num_kv_heads=1, head_dim=4, dtype="float32")
PRELUDE, SESSION_BYTES = 48, 64 + 64 + 32  # of 2 tokens: their ids, keys and values, each from a multiple of 64 on

Files = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """`files`: the directory that an input stands for. `parse`: what a user's command would do with it; it lets every
    exception through. `is_json`: inputs are damaged as JSON, not as bytes. `share`: of a run's inputs, in parts."""

    name: str
    files: Callable[[bytes], Files]
    parse: Callable[[Path], None]
    is_json: bool = False
    share: int = 1


def one_file(name: str, *beside: str) -> Callable[[bytes], Files]:
    """The input is the file `name`; `beside` it are parts, as "name in the directory=name of the part"."""
    fixed = {place: (PARTS / part).read_bytes() for place, part in (pair.split("=") for pair in beside)}
    return lambda data: {**fixed, name: data}


def several_files(*beside: str) -> Callable[[bytes], Files]:
    """The input is JSON of {name: JSON or text}. Names are plain ones, as a directory has them."""
    fixed = {place: (PARTS / part).read_bytes() for place, part in (pair.split("=") for pair in beside)}
    return lambda data: fixed | {name: _content(value) for name, value in _object(data).items() if name in NAMES}


def header_and_data(header: bytes) -> Files:
    return {WEIGHTS: len(header).to_bytes(8, "little") + header + bytes(4096)}


LLAMA, T5 = b'{"model_type": "llama"}', b'{"model_type": "t5"}'


def safetensors_file(root: Path) -> None:
    """Weights, and the first numbers of some of them."""
    for tensor in list(read_safetensors(root / WEIGHTS).values())[:8]:
        if 0 < len(tensor.shape) < 4:
            tensor.rows(0, min(2, tensor.shape[0]))


def checkpoint(root: Path) -> None:
    open_checkpoint(str(root))


def gguf_file(root: Path) -> None:
    """Header, config, tensors, tokenizer."""
    opened = open_checkpoint(str(root / "model.gguf"))
    for tensor in list(opened.tensors.values())[:8]:
        tensor.rows(0, 1)
    _architecture(opened.config)


def config(root: Path) -> None:
    """config.json, as far as the architecture's own config."""
    _architecture(json_file.read_json(root / CONFIG))


def text_files(root: Path) -> None:
    """The files that tokenizers are made of."""
    built = read_text_files(root).get("tokenizer.json")
    if built is not None:
        _use(Tokenizer(tokenizers.Tokenizer.from_buffer(built)))


def sentencepiece_models(root: Path) -> None:
    """A SentencePiece model, as the families of its two kinds read it."""
    for folder in ("llama", "t5"):
        with contextlib.suppress(EdgellmError):
            text_files(root / folder)


def tokenizer(root: Path) -> None:
    _use(Tokenizer.from_file(root / "tokenizer.json"))


def chat(root: Path) -> None:
    template = ChatTemplate.from_package(root)
    template.render(MESSAGES, tools=TOOLS)


def manifest(root: Path) -> None:
    """edgellm.json, and the files that it lists."""
    found = read_manifest(root)
    json.dumps(found.to_dict())
    if not isinstance(found.model, EncoderFacts):
        found.model.cache.names()
    check_files(root, found)


def generation_config(root: Path) -> None:
    """As the defaults of a call."""
    options = GenerationOptions.create(read_json(root / "generation_config.json"))
    options.check_vocabulary(1000)
    options.limit(3, 100)
    options.minimum(3)


def onnx(root: Path) -> None:
    """What a graph says of itself."""
    read_graph(root / GRAPH)


def foreign(root: Path) -> None:
    """A directory of another tool's graphs, as a package."""
    if is_foreign(root):
        path, found = read_foreign(root)
        json.dumps(found.to_dict())
        check_files(path, found)


def sentence_encoder(root: Path) -> None:
    read_embedding(root, 512)


def saved_session(header: bytes) -> Files:
    """A header with zeros for the arrays of SESSION behind it."""
    text = header.ljust(aligned(PRELUDE + len(header)) - PRELUDE)
    prelude = struct.pack("<8sII32s", MAGIC, FORMAT_VERSION, len(text), hashlib.sha256(text).digest())
    return {"session.kv": prelude + text + bytes(SESSION_BYTES)}


def session(root: Path) -> None:
    """A saved session, for a model with a cache like SESSION's."""
    with open_file(root / "session.kv") as saved:
        if saved.header.cache == SESSION:
            saved.read_tokens()
            shape = (SESSION.num_kv_heads, saved.header.tokens, SESSION.head_dim)
            saved.read_into([np.empty(shape, np.float32) for _ in range(2 * SESSION.num_layers)])


def evaluation_data(root: Path) -> None:
    """One content under the names of all formats."""
    columns = Columns.create()
    for suffix in SUFFIXES:
        with contextlib.suppress(EdgellmError):
            for record in open_data(root / f"data{suffix}"):
                columns.texts(record, "answers") if columns.has(record, "answers") else columns.text(record, "text")


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("safetensors", one_file(WEIGHTS), safetensors_file, share=4),
        Target("safetensors_header", header_and_data, safetensors_file, is_json=True, share=6),
        Target(
            "safetensors_index",
            one_file(INDEX, f"{CONFIG}=llama.json", "model-1.safetensors=shard", "model-2.safetensors=shard"),
            checkpoint,
            is_json=True,
            share=1,
        ),
        Target("gguf", one_file("model.gguf"), gguf_file, share=2),
        Target(
            "gguf_metadata", lambda data: {"model.gguf": gguf_bytes(_object(data))}, gguf_file, is_json=True, share=3
        ),
        Target("config", one_file(CONFIG), config, is_json=True, share=6),
        Target("text_files", several_files(), text_files, is_json=True, share=2),
        Target(
            "sentencepiece",
            lambda data: {
                f"llama/{CONFIG}": LLAMA,
                "llama/tokenizer.model": data,
                f"t5/{CONFIG}": T5,
                "t5/spiece.model": data,
            },
            sentencepiece_models,
            share=1,
        ),
        Target("tokenizer", one_file("tokenizer.json"), tokenizer, is_json=True, share=5),
        Target("tokenizer_config", one_file("tokenizer_config.json"), chat, is_json=True, share=1),
        Target("chat_template", one_file("chat_template.jinja"), chat, share=2),
        Target("manifest", one_file(MANIFEST_NAME, f"{GRAPH}=empty"), manifest, is_json=True, share=3),
        Target("generation_config", one_file("generation_config.json"), generation_config, is_json=True, share=4),
        Target("onnx", one_file(GRAPH), onnx, share=4),
        Target("foreign_graph", one_file(GRAPH, f"{CONFIG}=foreign.json", "model.onnx_data=empty"), foreign, share=1),
        Target("foreign_files", several_files(f"{GRAPH}=decoder.onnx"), foreign, is_json=True, share=1),
        Target("genai_files", several_files(f"{GRAPH}=decoder.onnx"), foreign, is_json=True, share=1),
        Target("session", one_file("session.kv"), session, share=3),
        Target("session_header", saved_session, session, is_json=True, share=3),
        Target(
            "evaluation_data", lambda data: {f"data{suffix}": data for suffix in SUFFIXES}, evaluation_data, share=3
        ),
        Target("sentence_encoder", several_files(), sentence_encoder, is_json=True, share=2),
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


def _architecture(config: Mapping[str, Any]) -> None:
    families = {"decoder": DECODERS, "encoder": ENCODERS, "encoder-decoder": ENCODER_DECODERS}[kind_of(config)]
    reader = ConfigReader(config)
    family(families[config["model_type"]]).parse(reader)
    reader.finish()


def _use(found: Tokenizer) -> None:
    for text in TEXTS:
        found.decode(found.encode(text).tolist())
