"""The packages behind the server that is fuzzed: a decoder whose chats have tools, a sentence encoder, and a model of
speech."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

import edgellm_export

sys.path.append(str(Path(__file__).parents[1] / "tests" / "runtime"))

from tiny_package import TinyConfig, write_package

TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{# <think> and </think> #}"
)
BERT: dict[str, Any] = {
    "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 131, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40, "type_vocab_size": 2,
    "pad_token_id": 0,
}  # fmt: skip
EOS, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_SPEECH, NO_TIMESTAMPS = range(131, 139)
WHISPER: dict[str, Any] = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "vocab_size": 190, "d_model": 16,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_source_positions": 50, "max_target_positions": 24,
    "num_mel_bins": 80, "is_encoder_decoder": True, "decoder_start_token_id": START, "eos_token_id": EOS,
    "pad_token_id": EOS, "bos_token_id": EOS,
}  # fmt: skip
SPEECH: dict[str, Any] = {
    "decoder_start_token_id": START, "eos_token_id": EOS, "no_timestamps_token_id": NO_TIMESTAMPS,
    "is_multilingual": True, "lang_to_id": {"<|en|>": ENGLISH, "<|de|>": GERMAN}, "max_length": 8,
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSCRIBE}, "alignment_heads": [[0, 1]],
}  # fmt: skip
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
SIZES = {name: BERT[f"{name}_size"] for name in ("vocab", "hidden", "intermediate")}
MODULES = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]


def make_packages(root: Path) -> dict[str, Path]:
    """By name."""
    config = TinyConfig(context_length=256, chat_template=TEMPLATE)
    speech = _exported(_write_speech, root / "speech")
    return {"tiny": write_package(root / "tiny", config), "vectors": write_vectors(root / "vectors"), "speech": speech}


def write_vectors(path: Path) -> Path:
    return _exported(_write_encoder, path)


def _exported(write: Callable[[Path], None], path: Path) -> Path:
    with tempfile.TemporaryDirectory() as checkpoint:
        write(Path(checkpoint))
        edgellm_export.export(checkpoint, path, precision="fp32", verify_quality=False)
    return path


def _write_weights(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    draw = np.random.default_rng(1)
    weights = {name: draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes}
    save_file(weights, path / "model.safetensors")


def _write_speech(path: Path) -> None:
    _write_weights(path, _speech_shapes())
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
             "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    tokenizer = Tokenizer(models.BPE(vocab={chr(32 + i): i for i in range(EOS)}, merges=[]))
    tokenizer.add_special_tokens(names)
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", special=False) for i in range(51)])
    tokenizer.save(str(path / "tokenizer.json"))
    sound = {"feature_size": 80, "chunk_length": 1, "sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
    for name, content in {"config": WHISPER, "generation_config": SPEECH, "preprocessor_config": sound}.items():
        (path / f"{name}.json").write_text(json.dumps(content))


def _speech_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = WHISPER["d_model"], WHISPER["decoder_ffn_dim"]
    yield "model.decoder.embed_tokens.weight", (WHISPER["vocab_size"], hidden)
    yield "model.decoder.embed_positions.weight", (WHISPER["max_target_positions"], hidden)
    yield "model.encoder.embed_positions.weight", (WHISPER["max_source_positions"], hidden)
    for i, channels in enumerate((WHISPER["num_mel_bins"], hidden), 1):
        yield f"model.encoder.conv{i}.weight", (hidden, channels, 3)
        yield f"model.encoder.conv{i}.bias", (hidden,)
    for side, blocks in {"encoder": ("self_attn",), "decoder": ("self_attn", "encoder_attn")}.items():
        layer = f"model.{side}.layers.0"
        linears = {f"{block}.{name}": (hidden, hidden) for block in blocks for name in PROJECTIONS}
        for name, shape in (linears | {"fc1": (inner, hidden), "fc2": (hidden, inner)}).items():
            yield f"{layer}.{name}.weight", shape
            if not name.endswith("k_proj"):
                yield f"{layer}.{name}.bias", shape[:1]
        norms = [f"{layer}.{name}_layer_norm" for name in (*blocks, "final")]
        for norm in (*norms, f"model.{side}.layer_norm"):
            yield f"{norm}.weight", (hidden,)
            yield f"{norm}.bias", (hidden,)


def _write_encoder(path: Path) -> None:
    _write_weights(path, _shapes())
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(32, 158))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(letters)}, merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path / "tokenizer.json"))
    modules = [
        {"idx": i, "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for i, (folder, kind) in enumerate(MODULES)
    ]
    pooling = {"word_embedding_dimension": SIZES["hidden"], "pooling_mode_mean_tokens": True}
    (path / "1_Pooling").mkdir()
    for name, content in {
        "config.json": BERT, "modules.json": modules, "1_Pooling/config.json": pooling,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"},
        "sentence_bert_config.json": {"max_seq_length": 20},
    }.items():  # fmt: skip
        (path / name).write_text(json.dumps(content))


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = SIZES["hidden"], SIZES["intermediate"]
    layer = "encoder.layer.0"
    for name, rows in (("word", SIZES["vocab"]), ("position", 40), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", (rows, hidden)
    linears = {f"attention.self.{side}": (hidden, hidden) for side in ("query", "key", "value")}
    linears |= {
        "attention.output.dense": (hidden, hidden), "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }  # fmt: skip
    for name, shape in linears.items():
        yield f"{layer}.{name}.weight", shape
        yield f"{layer}.{name}.bias", shape[:1]
    for norm in ("embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"):
        yield f"{norm}.weight", (hidden,)
        yield f"{norm}.bias", (hidden,)
