"""The packages behind the server that is fuzzed: a decoder whose chats have tools, and a sentence encoder."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import edgellm_export

sys.path.append(str(Path(__file__).parents[1] / "tests" / "runtime"))

from tiny_package import TinyConfig, write_package

TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{# <think> and </think> #}"
)
BERT: dict[str, Any] = {
    "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 131, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40, "type_vocab_size": 2,
    "pad_token_id": 0,
}  # fmt: skip
SIZES = {name: BERT[f"{name}_size"] for name in ("vocab", "hidden", "intermediate")}
MODULES = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]


def make_packages(root: Path) -> dict[str, Path]:
    """By name."""
    config = TinyConfig(context_length=256, chat_template=TEMPLATE)
    return {"tiny": write_package(root / "tiny", config), "vectors": write_vectors(root / "vectors")}


def write_vectors(path: Path) -> Path:
    with tempfile.TemporaryDirectory() as checkpoint:
        _write_checkpoint(Path(checkpoint))
        edgellm_export.export(checkpoint, path, precision="fp32", verify_quality=False)
    return path


def _write_checkpoint(path: Path) -> None:
    draw = np.random.default_rng(1)
    weights = {name: draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in _shapes()}
    save_file(weights, path / "model.safetensors")
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(32, 158))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(letters)}, merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path / "tokenizer.json"))
    modules = [
        {"idx": i, "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for i, (folder, kind) in enumerate(MODULES)
    ]
    pooling = {"word_embedding_dimension": SIZES["hidden"], "pooling_mode_mean_tokens": True}
    (path / "1_Pooling").mkdir()
    for name, content in {
        "config.json": BERT, "modules.json": modules, "1_Pooling/config.json": pooling,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"},
        "sentence_bert_config.json": {"max_seq_length": 20},
    }.items():  # fmt: skip
        (path / name).write_text(json.dumps(content))


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = SIZES["hidden"], SIZES["intermediate"]
    layer = "encoder.layer.0"
    for name, rows in (("word", SIZES["vocab"]), ("position", 40), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", (rows, hidden)
    linears = {f"attention.self.{side}": (hidden, hidden) for side in ("query", "key", "value")}
    linears |= {
        "attention.output.dense": (hidden, hidden), "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }  # fmt: skip
    for name, shape in linears.items():
        yield f"{layer}.{name}.weight", shape
        yield f"{layer}.{name}.bias", shape[:1]
    for norm in ("embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"):
        yield f"{norm}.weight", (hidden,)
        yield f"{norm}.bias", (hidden,)
