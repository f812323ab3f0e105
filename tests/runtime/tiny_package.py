"""A complete package with a tiny random model, built by hand: the graph contract in one page, no exporter needed.

`write_package` makes the directory; `reference_logits` is the same model in plain numpy, without a cache.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from edgellm.package.files import sha256_of, write_manifest
from edgellm.package.manifest import CacheLayout, DecoderFacts, FileEntry, GraphFile, Manifest, Rope, TokenIds, Weights

Array = npt.NDArray[Any]

BOS, EOS, PAD = 256, 257, 258
SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TinyConfig:
    """`long_from`: sequences longer than this use a second rotary table, as LongRoPE and dynamic NTK models do."""

    layers: int = 2
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    vocab_size: int = 264
    context_length: int = 96
    dtype: str = "float32"
    target: str = "cpu"
    long_from: int | None = None
    seed: int = 7
    generation: dict[str, Any] = field(default_factory=dict)
    bos: int | None = BOS
    chat_template: str = CHAT_TEMPLATE


def weights_of(config: TinyConfig) -> dict[str, Array]:
    rng = np.random.default_rng(config.seed)
    query, both = config.heads * config.head_dim, 2 * config.kv_heads * config.head_dim
    weights: dict[str, Array] = {"embed": rng.normal(0, 1, (config.vocab_size, config.hidden))}
    for i in range(config.layers):
        weights[f"qkv.{i}"] = rng.normal(0, config.hidden**-0.5, (config.hidden, query + both))
        weights[f"o.{i}"] = rng.normal(0, query**-0.5, (query, config.hidden))
        weights[f"up.{i}"] = rng.normal(0, config.hidden**-0.5, (config.hidden, 2 * config.hidden))
        weights[f"down.{i}"] = rng.normal(0, config.hidden**-0.5, (2 * config.hidden, config.hidden))
    weights["norm"] = np.ones(config.hidden)
    weights["head"] = rng.normal(0, 3 * config.hidden**-0.5, (config.hidden, config.vocab_size))
    for name, base in (("short", 100.0), ("long", 3000.0)):
        frequencies = base ** -np.linspace(0, 1, config.head_dim // 2, endpoint=False)
        angles = np.outer(np.arange(config.context_length), frequencies)
        weights[f"cos.{name}"], weights[f"sin.{name}"] = np.cos(angles), np.sin(angles)
    return {name: value.astype(config.dtype) for name, value in weights.items()}


def reference_logits(config: TinyConfig, ids: npt.ArrayLike) -> Array:
    """[length, vocab] float32 of one sequence, computed in one piece in float64."""
    w = {name: value.astype(np.float64) for name, value in weights_of(config).items()}
    tokens = np.asarray(ids)
    table = "long" if config.long_from is not None and len(tokens) > config.long_from else "short"
    cos, sin = w[f"cos.{table}"][: len(tokens), None], w[f"sin.{table}"][: len(tokens), None]
    x = w["embed"][tokens]
    for i in range(config.layers):
        x = x + _attention(config, _norm(x) @ w[f"qkv.{i}"], cos, sin) @ w[f"o.{i}"]
        x = x + np.tanh(_norm(x) @ w[f"up.{i}"]) @ w[f"down.{i}"]
    return (_norm(x) @ w["head"]).astype(np.float32)


def _norm(x: Array) -> Array:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6))


def _attention(config: TinyConfig, qkv: Array, cos: Array, sin: Array) -> Array:
    length, heads, kv = len(qkv), config.heads, config.kv_heads
    # each [length, heads, head_dim]
    q, k, v = np.split(qkv.reshape(length, -1, config.head_dim), [heads, heads + kv], axis=1)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    k, v = np.repeat(k, heads // kv, axis=1), np.repeat(v, heads // kv, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(config.head_dim)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v).reshape(length, -1)


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    left, right = np.split(x, 2, axis=-1)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def write_package(path: Path, config: TinyConfig | None = None) -> Path:
    config = config or TinyConfig()
    path.mkdir(parents=True)
    onnx.save_model(
        _graph(config), path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=64
    )
    tiny_tokenizer().save(str(path / "tokenizer.json"))
    _write_json(path / "tokenizer_config.json", {f"{name}_token": f"<|{name}|>" for name in ("bos", "eos", "pad")})
    _write_json(path / "generation_config.json", config.generation)
    (path / "chat_template.jinja").write_text(config.chat_template)
    write_manifest(path, _manifest(path, config))
    return path


def tiny_tokenizer() -> Tokenizer:
    """Byte-level: token i is byte i, then the special tokens."""
    alphabet = _byte_alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={alphabet[i]: i for i in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def _manifest(path: Path, config: TinyConfig) -> Manifest:
    inputs = ("input_ids", "attention_mask", "logits_to_keep")
    return Manifest(
        task="text-generation",
        model_type="tiny",
        target=config.target,  # type: ignore[arg-type]
        graphs={"model": GraphFile("model.onnx", inputs + ("rope_length",) * bool(config.long_from), ("logits",))},
        model=DecoderFacts(
            CacheLayout(config.layers, config.kv_heads, config.head_dim, config.dtype),  # type: ignore[arg-type]
            Rope(has_length_input=config.long_from is not None, recompute_beyond=config.long_from),
        ),
        weights=Weights("fp16" if config.dtype == "float16" else "fp32", config.dtype, tied_embedding=False),
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        tokens=TokenIds(bos=config.bos, eos=(EOS,), pad=PAD),
        files={p.name: FileEntry(p.stat().st_size, sha256_of(p)) for p in sorted(path.iterdir())},
    )


class _Graph:
    """Collects nodes and initializers; every call returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def const(self, name: str, value: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(f"ints{len(self.initializers)}", np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), domain: str = "", **attributes: Any) -> str:
        names = outputs or (f"{kind}_{len(self.nodes)}",)
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0]


def _graph(config: TinyConfig) -> Any:
    g, w = _Graph(), weights_of(config)
    names = {name: g.const(name, value) for name, value in w.items()}
    lengths = g.op("ReduceSum", "attention_mask", g.ints(1), keepdims=0)
    seqlens = g.op("Cast", g.op("Sub", lengths, g.ints(1)), to=TensorProto.INT32)
    total = g.op("Gather", g.op("Shape", "attention_mask"), g.const("one", np.array(1, np.int64)))
    tables = _rotary_tables(g, config, total)
    total32 = g.op("Cast", total, to=TensorProto.INT32)
    x = g.op("Gather", "embed", "input_ids")
    for i in range(config.layers):
        qkv = g.op("MatMul", _rms(g, x), names[f"qkv.{i}"])
        past = [f"past_key_values.{i}.{side}" for side in ("key", "value")]
        present = [f"present.{i}.{side}" for side in ("key", "value")]
        attention = g.op(
            "GroupQueryAttention", qkv, "", "", *past, seqlens, total32, *tables,
            outputs=(f"attention.{i}", *present), domain="com.microsoft",
            num_heads=config.heads, kv_num_heads=config.kv_heads, do_rotary=1,
        )  # fmt: skip
        x = g.op("Add", x, g.op("MatMul", attention, names[f"o.{i}"]))
        up = g.op("Tanh", g.op("MatMul", _rms(g, x), names[f"up.{i}"]))
        x = g.op("Add", x, g.op("MatMul", up, names[f"down.{i}"]))
    last = g.op("Slice", x, g.op("Neg", "logits_to_keep"), g.ints(np.iinfo(np.int64).max), g.ints(1))
    g.op("MatMul", _rms(g, last), "head", outputs=("logits",))
    return _model(g, config)


def _rms(g: _Graph, x: str) -> str:
    return g.op("SimplifiedLayerNormalization", x, "norm", axis=-1, epsilon=1e-6)


def _rotary_tables(g: _Graph, config: TinyConfig, total: str) -> list[str]:
    if config.long_from is None:
        return ["cos.short", "sin.short"]
    longest = g.op("Max", total, "rope_length")
    is_long = g.op("Greater", longest, g.ints(config.long_from))
    return [g.op("Where", is_long, f"{side}.long", f"{side}.short") for side in ("cos", "sin")]


def _model(g: _Graph, config: TinyConfig) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(config.dtype))
    optional = {"logits_to_keep": 1} | ({"rope_length": 0} if config.long_from is not None else {})
    for name, default in optional.items():
        g.const(name, np.array([default], np.int64))
    shape = ["batch", config.kv_heads, "capacity", config.head_dim]
    past, present = (
        [
            helper.make_tensor_value_info(f"{prefix}.{i}.{side}", kind, shape)
            for i in range(config.layers)
            for side in ("key", "value")
        ]
        for prefix in ("past_key_values", "present")
    )
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *(helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in optional),
        *past,
    ]
    logits = helper.make_tensor_value_info("logits", kind, ["batch", 1, config.vocab_size])
    graph = helper.make_graph(g.nodes, "tiny", inputs, [logits, *present], g.initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def greedy(config: TinyConfig, prompt: list[int], count: int) -> tuple[int, ...]:
    """What the model says if every token is computed from scratch."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(reference_logits(config, ids)[-1].argmax()))
    return tuple(ids[len(prompt) :])
