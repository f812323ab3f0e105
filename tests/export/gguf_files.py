"""Tiny GGUF files for the tests, written with gguf's own writer by llama.cpp's conversion rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
QUANTIZABLE = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]
# gguf cannot quantize to these, so tests make their blocks of random bytes.
READABLE = [
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4", "NVFP4"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
]
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
# GPT-2's characters for the bytes: printable ones stand for themselves, the others follow from U+0100.
BYTES = [*map(chr, PRINTABLE), *(chr(256 + n) for n in range(256 - len(PRINTABLE)))]
LLAMA = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
    "rope.dimension_count": 16,
}


def write_gguf(
    path: Path,
    arch: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Array | tuple[Array, gguf.GGMLQuantizationType]],
) -> Path:
    """Metadata keys are the architecture's unless they start with general, tokenizer, split or xielu.

    A tensor may come with a type to quantize it to.
    """
    writer = gguf.GGUFWriter(path, arch)
    for key, value in metadata.items():
        _add(writer, key if key.startswith(("general.", "tokenizer.", "split.", "xielu.")) else f"{arch}.{key}", value)
    for name, value in tensors.items():
        array, kind = value if isinstance(value, tuple) else (value, None)
        if kind is None:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        (writer.add_int32 if value < 0 else writer.add_uint32)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def byte_level(
    words: Sequence[str] = (),
    control: Sequence[str] = ("<|end|>",),
    merges: Sequence[str] = ("t h", "th e"),
    **more: Any,
) -> dict[str, Any]:
    """Tokenizer metadata of a byte-level BPE: 256 bytes, the results of the merges, then special tokens."""
    merged = [merge.replace(" ", "") for merge in merges]
    tokens = [*BYTES, *merged, *words, *control]
    kinds = [1] * (len(tokens) - len(control)) + [3] * len(control)
    base = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": kinds, "merges": list(merges)}
    base |= {"eos_token_id": len(tokens) - 1} if control else {}
    return {f"tokenizer.ggml.{key}": value for key, value in (base | more).items()}


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def llama_tensors(vocab: int, *, layers: int = 1, hidden: int = 64, kv: int = 32, inner: int = 96) -> dict[str, Array]:
    """The tensors of a tied llama by GGUF name."""
    tensors = {"token_embd.weight": random(vocab, hidden), "output_norm.weight": np.ones(hidden, np.float32)}
    for i in range(layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": np.ones(hidden, np.float32),
            f"blk.{i}.attn_q.weight": random(hidden, hidden, seed=1),
            f"blk.{i}.attn_k.weight": random(kv, hidden, seed=2),
            f"blk.{i}.attn_v.weight": random(kv, hidden, seed=3),
            f"blk.{i}.attn_output.weight": random(hidden, hidden, seed=4),
            f"blk.{i}.ffn_norm.weight": np.ones(hidden, np.float32),
            f"blk.{i}.ffn_gate.weight": random(inner, hidden, seed=5),
            f"blk.{i}.ffn_up.weight": random(inner, hidden, seed=6),
            f"blk.{i}.ffn_down.weight": random(hidden, inner, seed=7),
        }
    return tensors


def tiny_llama(path: Path, *, tokenizer: Mapping[str, Any] | None = None, **metadata: Any) -> Path:
    tokenizer = byte_level() if tokenizer is None else tokenizer
    vocab = len(tokenizer["tokenizer.ggml.tokens"])
    return write_gguf(path, "llama", LLAMA | tokenizer | metadata, llama_tensors(vocab))


def words(*vocabulary: str, **more: Any) -> dict[str, Any]:
    """Tokenizer metadata of BERT: its special tokens, then the words and pieces given, marked as conversion does."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    marked = [word[2:] if word.startswith("##") else f"\u2581{word}" for word in vocabulary]
    base = {
        "model": "bert",
        "tokens": [*special, *marked],
        "token_type": [3] * len(special) + [1] * len(marked),
        "padding_token_id": 0,
        "unknown_token_id": 1,
        "bos_token_id": 2,
        "seperator_token_id": 3,
        "mask_token_id": 4,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (base | more).items()}


T5_SPECIAL = {"<pad>": 3, "</s>": 3, "<unk>": 2}


def pieces(*vocabulary: str, special: Mapping[str, int] = T5_SPECIAL, **more: Any) -> dict[str, Any]:
    """Tokenizer metadata of a Unigram vocabulary: special tokens with their kinds, then pieces, the longer the
    likelier, and two that no text is cut into."""
    tokens = [*special, *vocabulary, "[PAD1]", "[PAD2]"]
    base = {
        "model": "t5",
        "pre": "default",
        "tokens": tokens,
        "token_type": [*special.values(), *[1] * len(vocabulary), 5, 5],
        "scores": [*[0.0] * len(special), *(-6.0 + len(p) - i / 64 for i, p in enumerate(vocabulary)), -1e4, -1e4],
        "add_space_prefix": True,
        "remove_extra_whitespaces": True,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (base | more).items()}


def split(path: Path, stem: str = "w", **changes: Any) -> list[Path]:
    """A tiny llama in three parts, as llama-gguf-split makes them: metadata is in the first. changes: of what the last
    says of itself."""
    count = 3
    tokenizer = byte_level()
    tensors = llama_tensors(len(tokenizer["tokenizer.ggml.tokens"]))
    paths = []
    for number in range(count):
        facts = {"no": number, "count": count, "tensors.count": len(tensors)}
        facts |= changes if number == count - 1 else {}
        metadata = (LLAMA | tokenizer if number == 0 else {}) | {f"split.{key}": v for key, v in facts.items()}
        part = {name: tensors[name] for name in list(tensors)[number::count]}
        paths.append(write_gguf(path / f"{stem}-{number + 1:05}-of-{count:05}.gguf", "llama", metadata, part))
    return paths
