"""GGUF files: metadata and tensors of some architectures."""

from __future__ import annotations

import math
from typing import Any

from fuzz.gguf_bytes import gguf_bytes
from fuzz.seeds.writing import write_input, write_json

SPACE = "\u2581"
TOKENS = [*map(chr, range(33, 62)), "e", "h", "t", "th", "the", "<|end|>"]
LLAMA = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 8,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
    "rope.dimension_count": 16,
}
BPE = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": TOKENS,
    "token_type": [1] * 34 + [3],
    "merges": ["t h", "th e"],
    "eos_token_id": 34,
}
SPM_TOKENS = ["<unk>", "<s>", "</s>", "<0x41>", SPACE, "a", "b", "ab", SPACE + "a"]
SPM = {
    "model": "llama",
    "tokens": SPM_TOKENS,
    "token_type": [2, 3, 3, 6, 1, 1, 1, 1, 1],
    "scores": [-float(i) - 0.5 for i in range(9)],
    "add_bos_token": True,
}
WORDS = {
    "model": "bert",
    "tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", SPACE + "a", "b", SPACE + "the"],
    "token_type": [3, 3, 3, 3, 1, 1, 1],
    "bos_token_id": 2,
    "seperator_token_id": 3,
    "unknown_token_id": 1,
    "token_type_count": 2,
    "normalizer.lowercase": True,
}
PIECES = {
    "model": "t5",
    "tokens": ["<pad>", "</s>", "<unk>", SPACE, SPACE + "a", "b", "[PAD1]"],
    "token_type": [3, 3, 2, 1, 1, 1, 5],
    "scores": [0.0, 0.0, 0.0, -2.0, -3.0, -4.0, -10000.0],
    "precompiled_charsmap": {"bytes": "\0\4\0\0" + "\0" * 1024 + "a\0"},
    "add_space_prefix": True,
    "remove_extra_whitespaces": True,
    "suppress_tokens": [5],
}
# Per architecture: which of the keys above it lacks, and which it has besides.
ROTARY = ("rope.freq_base", "rope.dimension_count")
LACKED = {
    "gpt2": (*ROTARY, "attention.head_count_kv"),
    "bert": (*ROTARY, "attention.head_count_kv"),
    "t5": (*ROTARY, "attention.head_count_kv"),
    "gptneox": ("attention.head_count_kv",),
}
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
MORE: dict[str, dict[str, Any]] = {
    "gemma3": {**LINEAR, "attention.sliding_window": 16},
    "phi3": {**LINEAR, "attention.sliding_window": 16},
    "qwen2": {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_beta_fast": 8.0},
    "gptneox": {"use_parallel_residual": True},
    "bert": {"attention.causal": False, "pooling_type": 1, "classifier.output_labels": ["a", "b"]},
    "t5": {"attention.relative_buckets_count": 8, "decoder_start_token_id": 0},
}
GENERAL = {
    "general.name": "phi3",
    "general.sampling.temp": 0.5,
    "general.sampling.top_k": 20,
    "tokenizer.chat_template": "{{ messages[0].content }}",
}
SHAPES = {
    "token_embd.weight": [40, 32],
    "output_norm.weight": [32],
    "blk.0.attn_q.weight": [32, 32],
    "blk.0.attn_k.weight": [16, 32],
    "blk.0.ffn_up.weight": [8, 32],
}
HEAD = {"token_types.weight": [2, 32], "cls.weight": [32, 32], "cls.output.weight": [2, 32]}
BESIDE: dict[str, dict[str, list[int]]] = {
    "llama": {"rope_freqs.weight": [8], "blk.0.ffn_up.scale": [1]},
    "bert": HEAD,
    "t5": {"output.weight": [40, 32], "enc.blk.0.ffn_gate.weight": [8, 32]},
    "gptneox": {"blk.0.attn_qkv.weight": [96, 32]},
}
DECODERS = (("llama", BPE), ("gemma3", SPM), ("phi3", SPM), ("qwen2", BPE), ("gpt2", BPE))
OTHERS = (("bert", PIECES), ("t5", PIECES), ("gptneox", BPE), ("starcoder2", BPE))


def write_gguf() -> None:
    for arch, vocabulary in (*DECODERS, *OTHERS):
        data = _model(arch, vocabulary, SHAPES | BESIDE.get(arch, {}))
        write_json("gguf_metadata", f"seed-{arch}", data)
        if arch in ("llama", "phi3"):
            write_input("gguf", f"seed-{arch}", gguf_bytes(data)[: -(1 << 16) + _end(data)])
    write_json("gguf_metadata", "seed-bert-words", _model("bert", WORDS, SHAPES | {"token_types.weight": [2, 32]}))
    split = {"split.count": 2, "split.tensors.count": 2}
    first = _model("llama", BPE, {"token_embd.weight": [40, 32]}, {"split.no": 0} | split)
    second = {"general.architecture": "llama", "split.no": 1} | split
    rest = _tensors({"output_norm.weight": [32]})
    write_json("gguf_parts", "seed-llama", {"first": first, "second": {"pairs": second, "tensors": rest}})


def _model(
    arch: str, vocabulary: dict[str, Any], shapes: dict[str, list[int]], more: dict[str, Any] | None = None
) -> dict[str, Any]:
    keys = {key: value for key, value in LLAMA.items() if key not in LACKED.get(arch, ())}
    keys |= MORE.get(arch, {}) | {"attention.layer_norm_epsilon": 1e-5}
    pairs = {"general.architecture": arch, "general.alignment": 32, **GENERAL, **(more or {})}
    pairs |= {f"{arch}.{key}": value for key, value in keys.items()}
    pairs |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
    return {"pairs": pairs, "tensors": _tensors(shapes)}


def _tensors(shapes: dict[str, list[int]]) -> list[list[Any]]:
    tensors, end = [], 0
    for name, shape in shapes.items():
        tensors.append([name, shape, 0, end])
        end += -(-4 * math.prod(shape) // 32) * 32
    return tensors


def _end(data: dict[str, Any]) -> int:
    _, shape, _, start = data["tensors"][-1]
    return int(start) + 4 * math.prod(shape)
