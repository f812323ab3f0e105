"""Writes all seeds."""

from __future__ import annotations

import json

from fuzz.seeds import configs, gguf_files, packages, texts, weights
from fuzz.seeds.writing import write_input, write_json, write_part


def main() -> None:
    write_safetensors()
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
