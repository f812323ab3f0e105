"""GGUF files: metadata and tensors of some architectures."""

from __future__ import annotations

import math

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
    "chat_template": "{{ messages[0].content }}",
}
SPM_TOKENS = ["<unk>", "<s>", "</s>", "<0x41>", SPACE, "a", "b", "ab", SPACE + "a"]
SPM = {
    "model": "llama",
    "tokens": SPM_TOKENS,
    "token_type": [2, 3, 3, 6, 1, 1, 1, 1, 1],
    "scores": [-float(i) - 0.5 for i in range(9)],
    "add_bos_token": True,
}
SHAPES = {
    "token_embd.weight": [40, 32],
    "output_norm.weight": [32],
    "rope_freqs.weight": [8],
    "blk.0.attn_q.weight": [32, 32],
    "blk.0.attn_k.weight": [16, 32],
    "blk.0.ffn_up.weight": [8, 32],
}


def write_gguf() -> None:
    for arch, vocabulary in (("llama", BPE), ("gemma3", SPM), ("phi3", SPM), ("qwen2", BPE), ("gpt2", BPE)):
        pairs = {"general.architecture": arch, "general.alignment": 32, "general.name": "phi3"}
        pairs |= {f"{arch}.{key}": value for key, value in LLAMA.items()}
        pairs |= {
            f"{arch}.rope.scaling.type": "linear",
            f"{arch}.rope.scaling.factor": 2.0,
            f"{arch}.attention.sliding_window": 16,
            f"{arch}.attention.layer_norm_epsilon": 1e-5,
        }
        pairs |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
        tensors, end = [], 0
        for name, shape in SHAPES.items():
            if arch == "llama" or name != "rope_freqs.weight":
                tensors.append([name, shape, 0, end])
                end += 4 * math.prod(shape)
        data = {"pairs": pairs, "tensors": tensors}
        write_json("gguf_metadata", f"seed-{arch}", data)
        if arch in ("llama", "phi3"):
            write_input("gguf", f"seed-{arch}", gguf_bytes(data)[: -(1 << 16) + end])
