"""GGUF metadata of T5 and its kin to config.json."""

from __future__ import annotations

import numpy as np

from edgellm_export.gguf.keys import Config, Keys, layer_count
from edgellm_export.gguf.reader import GgufFile

SAME = 0.2  # of the size of a row, which quantization moves far less


def t5_config(keys: Keys) -> Config:
    """T5 1.0 and 1.1, Flan-T5, mT5 and UMT5."""
    file = keys.file
    own = any(f"{side}.blk.1.attn_rel_b.weight" in file.tensors for side in ("enc", "dec"))  # positions of each layer
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim = keys.integer("attention.key_length", max(hidden // heads, 1))
    keys.must_be("attention.value_length", 0, head_dim)
    keys.must_be("attention.head_count_kv", 0, heads)
    keys.must_be("attention.causal", True)
    layers = layer_count(keys)
    start = keys.get("decoder_start_token_id")
    return {
        "architectures": [f"{'UMT5' if own else 'T5'}ForConditionalGeneration"],
        "model_type": "umt5" if own else "t5",
        "is_encoder_decoder": True,
        "d_model": hidden,
        "d_ff": keys.integer("feed_forward_length"),
        "d_kv": head_dim,
        "num_layers": layers,
        "num_decoder_layers": keys.integer("decoder_block_count", layers),
        "num_heads": heads,
        "n_positions": keys.integer("context_length", 512),
        "layer_norm_epsilon": keys.number("attention.layer_norm_rms_epsilon"),
        "relative_attention_num_buckets": keys.integer("attention.relative_buckets_count"),
        "relative_attention_max_distance": 128,  # llama.cpp's
        "feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in file.tensors else "relu",
        "tie_word_embeddings": _is_tied(file),
        "decoder_start_token_id": start if type(start) is int else 0,
        "torch_dtype": "float32",
    }


def _is_tied(file: GgufFile) -> bool:
    """Whether the head is the embedding, whose inputs T5 then scales: it may be there twice, quantized differently."""
    head, embedding = file.tensors.get("output.weight"), file.tensors.get("token_embd.weight")
    if head is None or embedding is None:
        return True
    if head.shape != embedding.shape:
        return False
    rows = min(8, head.shape[0])
    one, other = head.rows(0, rows), embedding.rows(0, rows)
    with np.errstate(all="ignore"):
        return bool(np.linalg.norm(one - other) < SAME * np.linalg.norm(other))
