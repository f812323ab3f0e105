"""What a user's command does with a directory: each parser under test, and the first uses of what came back.

A parser opens the directory as a command would, and goes as far as the next step of an export or a load does. What a
damaged file does is so seen where a user would meet it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tokenizers

from edgellm.decoding import GenerationOptions
from edgellm.errors import EdgellmError
from edgellm.evaluation.data import Columns, open_data
from edgellm.foreign import is_foreign, read_foreign
from edgellm.package.files import check_files, read_manifest
from edgellm.package.json_data import read_json
from edgellm.package.manifest import EncoderFacts
from edgellm.package.onnx_file import read_graph
from edgellm.package.sentence import read_embedding
from edgellm.sessions.file import open_file
from edgellm.sessions.header import StoredCache
from edgellm.text.chat import ChatTemplate
from edgellm.text.tokenizer import Tokenizer
from edgellm_export.adapters.checkpoint import merge_adapters, open_adapters
from edgellm_export.architectures import read_family
from edgellm_export.checkpoint import Checkpoint, json_file
from edgellm_export.checkpoint.integers import QuantizedTensor
from edgellm_export.checkpoint.tensors import LazyTensor, ZeroTensor
from edgellm_export.prequantized import widened
from edgellm_export.quantize.carried import carried
from edgellm_export.quantize.grid import Grid
from edgellm_export.sources.choice import find_weights
from edgellm_export.sources.opening import open_checkpoint
from edgellm_export.tokenizer.files import read_text_files
from edgellm_export.weights import hdf5_structure
from edgellm_export.weights.hdf5 import tensors_of
from edgellm_export.weights.pytorch import read_pytorch
from edgellm_export.weights.safetensors import read_safetensors
from edgellm_export.weights.tensorflow import translated
from fuzz.http_server import check_exchange, decoder

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "It scatters <light>.", "tool_calls": [{"name": "f", "arguments": {"a": [1]}}]},
    {"role": "user", "content": [{"type": "text", "text": "And at dusk?"}]},
]
TOOLS = [{"name": "f", "parameters": {"type": "object"}}]
TEXTS = ("The sky, at 12 o'clock.", "  naïve 中国 🙂\n\t<s>", "x" * 40)
CONSTRAINTS = ("json_schema", "regex", "grammar", "choices")
CONFIG, WEIGHTS, GRAPH = "config.json", "model.safetensors", "model.onnx"
LAYER = "model.layers.0"
ADAPTED = Checkpoint(
    config={
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 1, "head_dim": 16, "vocab_size": 10, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    tensors={
        name: ZeroTensor(name, shape)
        for name, shape in {
            "model.embed_tokens.weight": (10, 16), f"{LAYER}.self_attn.q_proj.weight": (16, 16),
            f"{LAYER}.self_attn.q_proj.bias": (16,), f"{LAYER}.mlp.down_proj.weight": (16, 12),
            "model.norm.weight": (16,),
        }.items()
    },
    files={},
    source={},
)  # fmt: skip
REQUEST, CONSTRAINT = "request", "constraint.json"
PYTORCH, TENSORFLOW = "pytorch_model.bin", "tf_model.h5"
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
GRIDS = (Grid(4, 32, False), Grid(8, 32, True))
SESSION = StoredCache(num_layers=1, num_kv_heads=1, head_dim=4, dtype="float32")


def safetensors_file(root: Path) -> None:
    """Weights, and the first numbers of some of them."""
    _first_rows(read_safetensors(root / WEIGHTS))


def pytorch_file(root: Path) -> None:
    """The same of PyTorch's own file."""
    _first_rows(read_pytorch(root / PYTORCH))


def tensorflow_file(root: Path) -> None:
    """Of TensorFlow's, with its names and layouts translated. What reads its structure has a process of its own, and
    is called here without."""
    path = root / TENSORFLOW
    with contextlib.suppress(*hdf5_structure.ERRORS):
        arrays = hdf5_structure.arrays(path)
        _first_rows(translated(tensors_of(path, arrays)))


def weight_choice(root: Path) -> None:
    """Which of a repository's files hold the weights, or what is said of them: {"names": [...], "config": {...}}."""
    data = json_file.read_json(root / CONFIG)
    names, config = data.get("names"), data.get("config")
    if isinstance(names, list) and isinstance(config, dict):
        find_weights("org/name", [name for name in names if isinstance(name, str)], config)


def quantized(root: Path) -> None:
    """Quantized matrices: some rows, as numbers and as integers that are kept."""
    found = widened(json_file.read_json(root / CONFIG), read_safetensors(root / WEIGHTS))
    for tensor in [tensor for tensor in found.values() if isinstance(tensor, QuantizedTensor)][:4]:
        start = tensor.shape[0] // 2
        tensor.rows(start, min(start + 2, tensor.shape[0]))
        for grid in GRIDS:
            carried(tensor, grid, start, start + 1)


def checkpoint(root: Path) -> None:
    open_checkpoint(str(root))


def adapter(root: Path) -> None:
    """A LoRA adapter, merged into a model that its names may be those of, and rows of what came of it."""
    merged = merge_adapters(ADAPTED, open_adapters([(root, 1.0)])).tensors
    for tensor in list(merged.values())[:8]:
        tensor.rows(0, min(2, tensor.shape[0]))


def gguf_file(root: Path) -> None:
    """Header, config, tensors, tokenizer."""
    _gguf(root / "model.gguf")


def gguf_parts(root: Path) -> None:
    """The same of a model in parts."""
    _gguf(root / "model-00002-of-00002.gguf")


def _gguf(path: Path) -> None:
    opened = open_checkpoint(str(path))
    for tensor in list(opened.tensors.values())[:8]:
        tensor.rows(0, 1)
    _use(Tokenizer(tokenizers.Tokenizer.from_buffer(opened.files["tokenizer.json"])))
    read_family(opened.config, len(opened.tensors))


def config(root: Path) -> None:
    """config.json, as far as the architecture's own config."""
    read_family(json_file.read_json(root / CONFIG), 100)


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
    """generation_config.json, as the defaults of a call."""
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


def http_request(root: Path) -> None:
    """What a client sends to `edgellm serve`, and what it gets."""
    check_exchange((root / REQUEST).read_bytes())


def constraint(root: Path) -> None:
    """What is asked of a text, and the first tokens of one."""
    try:
        asked = json.loads((root / CONSTRAINT).read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(asked, dict):
        decoder().generate("a", max_new_tokens=24, do_sample=False, **{k: asked[k] for k in CONSTRAINTS if k in asked})


def _first_rows(tensors: Mapping[str, LazyTensor]) -> None:
    for tensor in list(tensors.values())[:8]:
        if 0 < len(tensor.shape) < 4:
            tensor.rows(0, min(2, tensor.shape[0]))


def _use(found: Tokenizer) -> None:
    for text in TEXTS:
        found.decode(found.encode(text).tolist())
