"""Random weights in the shapes of T5-base and of opus-mt (Marian), for speed and memory, not quality."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from random_checkpoint import write_tensors

Tensors = Iterator[tuple[str, tuple[int, ...]]]

T5_BASE: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "vocab_size": 32128,
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
OPUS_MT: dict[str, Any] = {
    "architectures": ["MarianMTModel"],
    "model_type": "marian",
    "is_encoder_decoder": True,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "max_position_embeddings": 512,
    "activation_function": "swish",
    "scale_embedding": True,
    "static_position_embeddings": True,
    "vocab_size": 58101,
    "decoder_start_token_id": 58100,
    "pad_token_id": 58100,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "forced_eos_token_id": None,
}


def t5_tensors(config: dict[str, Any]) -> Tensors:
    hidden, inner, ffn = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    yield "shared.weight", (config["vocab_size"], hidden)
    for side in ("encoder", "decoder"):
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield first, (config["relative_attention_num_buckets"], config["num_heads"])
        for i in range(config["num_layers"]):
            name = f"{side}.block.{i}.layer"
            kinds = ["SelfAttention"] if side == "encoder" else ["SelfAttention", "EncDecAttention"]
            for place, kind in enumerate(kinds):
                for part in "qkv":
                    yield f"{name}.{place}.{kind}.{part}.weight", (inner, hidden)
                yield f"{name}.{place}.{kind}.o.weight", (hidden, inner)
                yield f"{name}.{place}.layer_norm.weight", (hidden,)
            yield f"{name}.{len(kinds)}.DenseReluDense.wi.weight", (ffn, hidden)
            yield f"{name}.{len(kinds)}.DenseReluDense.wo.weight", (hidden, ffn)
            yield f"{name}.{len(kinds)}.layer_norm.weight", (hidden,)
        yield f"{side}.final_layer_norm.weight", (hidden,)


def marian_tensors(config: dict[str, Any]) -> Tensors:
    hidden, ffn = config["d_model"], config["encoder_ffn_dim"]
    yield "model.shared.weight", (config["vocab_size"], hidden)
    yield "final_logits_bias", (1, config["vocab_size"])
    for side in ("encoder", "decoder"):
        for i in range(config[f"{side}_layers"]):
            name = f"model.{side}.layers.{i}"
            for kind in ["self_attn"] if side == "encoder" else ["self_attn", "encoder_attn"]:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield f"{name}.{kind}.{part}.weight", (hidden, hidden)
                    yield f"{name}.{kind}.{part}.bias", (hidden,)
                yield f"{name}.{kind}_layer_norm.weight", (hidden,)
                yield f"{name}.{kind}_layer_norm.bias", (hidden,)
            for part, shape in (("fc1", (ffn, hidden)), ("fc2", (hidden, ffn))):
                yield f"{name}.{part}.weight", shape
                yield f"{name}.{part}.bias", shape[:1]
            yield f"{name}.final_layer_norm.weight", (hidden,)
            yield f"{name}.final_layer_norm.bias", (hidden,)


@dataclass(frozen=True)
class Shape:
    title: str
    config: dict[str, Any]
    tensors: Callable[[dict[str, Any]], Tensors]


SHAPES = {
    "t5-base": Shape("T5-base", T5_BASE, t5_tensors),
    "opus-mt": Shape("opus-mt (Marian)", OPUS_MT, marian_tensors),
}


def write_checkpoint(directory: Path, shape: Shape) -> Path:
    """A bf16 checkpoint directory with a tokenizer; already there: left alone."""
    if (directory / "config.json").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / "model.safetensors", list(shape.tensors(shape.config)))
    tokenizer(shape.config).save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (directory / "config.json").write_text(json.dumps(shape.config, indent=2))
    return directory


def tokenizer(config: dict[str, Any]) -> Tokenizer:
    """One token per byte, and names for all other ids: text to calibrate with, words for peers that want such."""
    special = {config["pad_token_id"]: "<pad>", config["eos_token_id"]: "</s>"}
    special[next(i for i in range(3) if i not in special)] = "<unk>"
    letters = iter(sorted(pre_tokenizers.ByteLevel.alphabet()))
    names = [special.get(i) or next(letters, f"t{i}") for i in range(config["vocab_size"])]
    found = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    found.add_special_tokens([AddedToken(name, special=True) for name in special.values()])
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return found
