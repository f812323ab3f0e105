"""GGUF files for llama.cpp out of the same float32 weights that the other systems are given.

Quantized by the `gguf` package, whose Q8_0 and Q4_0 are llama.cpp's bit for bit. The embedding, which is the head too,
is Q8_0 in both: llama.cpp's own tool chooses so for rows that are no multiple of 256, as both models' are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, TokenType
from gguf.constants import MODEL_ARCH
from gguf.quants import dequantize, quantize
from gguf.tensor_mapping import TensorNameMap, get_tensor_name_map

from edgellm_export.sources.opening import open_checkpoint

FORMATS = {
    "int8": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "int4": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
WRITTEN_ANEW = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
Tensors = Iterator[tuple[str, np.ndarray]]


def requantize(source: Path, out: Path, precision: str) -> None:
    """Write `source` with its weights brought to float32 and quantized anew; everything else stays."""
    reader = GGUFReader(source)
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith(WRITTEN_ANEW):
            element = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], element)
    _write(writer, ((t.name, dequantize(t.data, t.tensor_type)) for t in reader.tensors), precision)


def write_random_qwen2(checkpoint: Path, out: Path, precision: str) -> None:
    """The random checkpoint; its tokens are made up, for nothing is ever tokenized."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(out, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"t{i}" for i in range(config["vocab_size"])])
    writer.add_token_types([TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    names = get_tensor_name_map(MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    tensors = open_checkpoint(str(checkpoint)).tensors.items()
    _write(writer, ((_gguf_name(names, name), t.rows(0, t.shape[0])) for name, t in tensors), precision)


def _gguf_name(names: TensorNameMap, name: str) -> str:
    found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise KeyError(f"no GGUF name for {name}")
    return found


def _write(writer: GGUFWriter, tensors: Tensors, precision: str) -> None:
    kind, file_type = FORMATS[precision]
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    for name, values in tensors:
        values = values.astype(np.float32)
        if values.ndim < 2:
            writer.add_tensor(name, values)
        else:
            used = GGMLQuantizationType.Q8_0 if name == "token_embd.weight" else kind
            writer.add_tensor(name, quantize(values, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
