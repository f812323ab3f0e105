"""GGUF files for llama.cpp out of the same float32 weights that the other systems are given.

Quantized by the `gguf` package, whose Q8_0 and Q4_0 are llama.cpp's bit for bit. The embedding, which is the head too,
is Q8_0 in both: llama.cpp's own tool chooses so for rows that are no multiple of 256, as both models' are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
OLMOE_TOKENS = 50304
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
    _add_made_up_tokens(writer, config["vocab_size"], "qwen2", config["eos_token_id"])
    names = get_tensor_name_map(MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    tensors = open_checkpoint(str(checkpoint)).tensors.items()
    _write(writer, ((_gguf_name(names, name), t.rows(0, t.shape[0])) for name, t in tensors), precision)


def write_random_olmoe(out: Path, sizes: Mapping[str, int]) -> None:
    """A mixture in Q8_0 of random bits, one tensor in memory at a time. sizes: by the names of its keys in GGUF."""
    hidden, inner, experts = (sizes[key] for key in ("embedding_length", "feed_forward_length", "expert_count"))
    writer = GGUFWriter(out, "olmoe", use_temp_file=True)
    for key, value in sizes.items():
        writer.add_uint32(f"olmoe.{key}", value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    _add_made_up_tokens(writer, OLMOE_TOKENS, pre="olmo")
    layer = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (hidden, hidden)),
        **dict.fromkeys(("ffn_gate_exps", "ffn_up_exps"), (experts, inner, hidden)),
        "ffn_down_exps": (experts, hidden, inner),
    }
    norms = {f"blk.{i}.{part}_norm.weight" for i in range(sizes["block_count"]) for part in ("attn", "ffn")}
    norms |= {f"blk.{i}.attn_{side}_norm.weight" for i in range(sizes["block_count"]) for side in "qk"}
    random = np.random.default_rng(0)
    matrices = {f"blk.{i}.{part}.weight": shape for i in range(sizes["block_count"]) for part, shape in layer.items()}
    matrices |= dict.fromkeys(("token_embd.weight", "output.weight"), (OLMOE_TOKENS, hidden))
    for name, shape in matrices.items():
        writer.add_tensor(name, _random_q8_0(random, shape), raw_dtype=GGMLQuantizationType.Q8_0)
    for i in range(sizes["block_count"]):
        router = random.standard_normal((experts, hidden), np.float32) * np.float32(0.02)
        writer.add_tensor(f"blk.{i}.ffn_gate_inp.weight", router)
    for name in sorted({"output_norm.weight", *norms}):
        writer.add_tensor(name, np.ones(hidden, np.float32))
    _finish(writer, LlamaFileType.MOSTLY_Q8_0)


def _random_q8_0(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Blocks of 32 integers with a scale before them, which makes the numbers as large as those of a trained matrix."""
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // 32, 34), np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(0.02 / 74).tobytes(), np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def _add_made_up_tokens(writer: GGUFWriter, count: int, pre: str, end: int = 0) -> None:
    """Nothing is ever tokenized. end: the token that begins and ends texts."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["t", "1", *(f"t{i}" for i in range(count - 2))])
    writer.add_token_types([TokenType.NORMAL] * count)
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)


def _finish(writer: GGUFWriter, file_type: LlamaFileType) -> None:
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(names: TensorNameMap, name: str) -> str:
    found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise KeyError(f"no GGUF name for {name}")
    return found


def _write(writer: GGUFWriter, tensors: Tensors, precision: str) -> None:
    kind, file_type = FORMATS[precision]
    for name, values in tensors:
        values = values.astype(np.float32)
        if values.ndim < 2:
            writer.add_tensor(name, values)
        else:
            used = GGMLQuantizationType.Q8_0 if name == "token_embd.weight" else kind
            writer.add_tensor(name, quantize(values, used), raw_dtype=used)
    _finish(writer, file_type)
