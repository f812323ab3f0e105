"""Tiny checkpoints, and what optimum makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from families import save_tokenizer, tiny_tokenizer

VOCAB, CONTEXT = 131, 96
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

CONFIGS: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "gpt_neox": lambda: hf.GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=48, num_hidden_layers=3, num_attention_heads=6, intermediate_size=88,
        max_position_embeddings=CONTEXT, rotary_pct=0.5, **TOKENS,
    ),
    "opt": lambda: hf.OPTConfig(
        vocab_size=VOCAB, hidden_size=48, num_hidden_layers=3, num_attention_heads=6, ffn_dim=88,
        max_position_embeddings=CONTEXT, word_embed_proj_dim=48, **TOKENS,
    ),
    "bloom": lambda: hf.BloomConfig(vocab_size=VOCAB, hidden_size=48, n_layer=3, n_head=6, **TOKENS),
    "gpt_bigcode": lambda: hf.GPTBigCodeConfig(
        vocab_size=VOCAB, n_embd=48, n_layer=3, n_head=6, n_positions=CONTEXT, **TOKENS
    ),
    "mt5": lambda: hf.MT5Config(
        vocab_size=VOCAB, d_model=48, d_kv=8, d_ff=88, num_layers=2, num_heads=6,
        decoder_start_token_id=0, eos_token_id=2, pad_token_id=0,
    ),
    "blenderbot": lambda: hf.BlenderbotConfig(
        vocab_size=VOCAB, d_model=48, encoder_layers=2, decoder_layers=3, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=88, decoder_ffn_dim=88, max_position_embeddings=CONTEXT,
        decoder_start_token_id=1, **TOKENS,
    ),
}  # fmt: skip
DECODERS = ["gpt_neox", "opt", "bloom", "gpt_bigcode"]
ENCODER_DECODERS = ["mt5", "blenderbot"]


def make_model(name: str) -> Any:
    """Seeded, float32. Norms and biases are random too: 1 and 0 would hide mistakes."""
    torch.manual_seed(sum(map(ord, name)))
    with warnings.catch_warnings():  # torch's, of what transformers uses
        warnings.simplefilter("ignore", DeprecationWarning)
        auto = hf.AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else hf.AutoModelForCausalLM
        model = auto.from_config(CONFIGS[name]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    model.generation_config = hf.GenerationConfig.from_model_config(model.config)
    return model


def save_checkpoint(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    save_tokenizer(tiny_tokenizer(VOCAB), path)
    return path
