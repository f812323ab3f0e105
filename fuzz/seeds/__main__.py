"""Writes all seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fuzz.seeds import configs, gguf_files, packages, quantized, requests, texts, weights
from fuzz.seeds.writing import write_input, write_json, write_part


def main() -> None:
    write_safetensors()
    quantized.write_quantized()
    write_adapters()
    weights.write_pytorch()
    weights.write_tensorflow()
    weights.write_choices()
    gguf_files.write_gguf()
    configs.write_configs()
    texts.write_text_files()
    texts.write_sentencepiece()
    texts.write_tokenizers()
    texts.write_templates()
    packages.write_manifests()
    packages.write_graphs()
    packages.write_sessions()
    packages.write_evaluation()
    packages.write_generation_configs()
    write_sentence_encoder()
    requests.write_requests()


def write_safetensors() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "F16", "shape": [], "data_offsets": [32, 34]},
    }
    write_json("safetensors_header", "seed", header)
    text = json.dumps(header).encode()
    shard = len(text).to_bytes(8, "little") + text + bytes(64)
    write_part("shard", shard)
    write_part("empty", b"")
    write_part("llama.json", b'{"model_type": "llama"}')
    write_input("safetensors", "seed", shard)
    map_ = {"a": "model-1.safetensors", "b.weight": "model-2.safetensors"}
    write_json("safetensors_index", "seed", {"metadata": {"total_size": 34}, "weight_map": map_})


def write_adapters() -> None:
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj", "embed_tokens"],
        "rank_pattern": {"down_proj": 3}, "alpha_pattern": {r"mlp\..*": 2}, "modules_to_save": ["norm"],
        "use_rslora": True, "layers_to_transform": [0], "base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM",
    }  # fmt: skip
    query, down = "base_model.model.model.layers.0.self_attn.q_proj", "base_model.model.model.layers.0.mlp.down_proj"
    shapes = {
        f"{query}.lora_A.weight": (2, 16), f"{query}.lora_B.weight": (16, 2), f"{down}.lora_A.weight": (3, 12),
        f"{down}.lora_B.weight": (16, 3), "base_model.model.model.norm.weight": (16,),
    }  # fmt: skip
    write_json("adapter", "seed", {"config": config, "header": _header(shapes)})
    words = {
        "peft_type": "LORA", "r": 2, "target_modules": "all-linear", "use_dora": True, "trainable_token_indices": [1],
    }  # fmt: skip
    shapes = {
        f"{query}.lora_A.weight": (2, 16), f"{query}.lora_B.weight": (16, 2), f"{query}.lora_magnitude_vector": (16,),
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (1, 16),
        f"{query}.base_layer.bias": (16,),
    }  # fmt: skip
    write_json("adapter", "words", {"config": words, "header": _header(shapes)})
    ends = {"peft_type": "LORA", "r": 2, "target_modules": "(.*embed_tokens|lm_head)", "lora_bias": False}
    shapes = {
        "model.embed_tokens.lora_embedding_A": (2, 11), "model.embed_tokens.lora_embedding_B": (16, 2),
        "model.embed_tokens.base_layer.weight": (11, 16), "lm_head.lora_A.weight": (2, 16),
        "lm_head.lora_B.weight": (11, 2),
    }  # fmt: skip
    write_json("adapter", "ends", {"config": ends, "header": _header(shapes)})


def _header(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Of float32 tensors one behind the other."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    return header


def write_sentence_encoder() -> None:
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2", "Normalize")])
    ]
    sentence = {"modules.json": modules, "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False}}
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    write_json("sentence_encoder", "seed", sentence | {"1_Pooling/config.json": pooling})


if __name__ == "__main__":
    main()
