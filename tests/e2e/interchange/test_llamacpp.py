"""GGUF files beside llama.cpp: the numbers of each architecture, and the tokens of each kind of tokenizer.

Weights are float32. llama.cpp keeps the cache in float16 and looks activations up in tables of float16, so its numbers
differ by up to a hundredth."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
import transformers as hf
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

import edgellm
import edgellm_export
from comparison import relative_rms
from edgellm_export.sources.opening import open_checkpoint
from edgellm_export.tokenizer.pretokenizers import PRE_TOKENIZERS
from gguf_conversion import convert
from gguf_files import QUANTIZABLE, READABLE, byte_level, pieces, tiny_llama, words, write_gguf
from interchange.peer import Peer

NEAR = 0.01
ADDED = re.compile(r"post_(attention_layernorm|feedforward_layernorm|per_layer_input_norm|laurel_norm)")
FAR = 0.1  # what a misread key changes, at least
BYTES = byte_level(control=("<|end|>",), merges=("t h", "th e", "\u0120 the"))
VOCAB = len(BYTES["tokenizer.ggml.tokens"])
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}
NO_IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
STATES: dict[str, Any] = {
    **NO_IDS, "vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 16,
    "state_size": 16,
}  # fmt: skip
HYBRID: dict[str, Any] = {
    **NO_IDS, "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 8,
    "mamba_d_state": 16, "attention_multiplier": 0.3, "residual_multiplier": 0.5, "logits_scaling": 4.0,
}  # fmt: skip
GEMMA: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "tie_word_embeddings": True}


@dataclass(frozen=True)
class Case:
    """A config in transformers, and what its file says besides. `metadata`: of the architecture. `arch`: that, where it
    does not follow from the config. `model`: where it is no model of its own, of text in another. `added`: how large is
    what layers add to the stream, in a model of so many that rounding would grow from one to the next."""

    config: Callable[..., hf.PretrainedConfig]
    changes: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    arch: str | None = None
    model: Any = None
    added: float = 1.0


DECODERS = {
    "llama": Case(hf.LlamaConfig, {"head_dim": 16, "rope_theta": 50000.0}),
    "llama tied with biases": Case(
        hf.LlamaConfig, {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    ),
    "llama 3": Case(hf.LlamaConfig, {"head_dim": 32, "rope_theta": 500000.0, "rope_scaling": LLAMA3}),
    "llama linear": Case(
        hf.LlamaConfig,
        {"head_dim": 16, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "qwen2": Case(hf.Qwen2Config),
    "qwen2 yarn": Case(
        hf.Qwen2Config,
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
        },
    ),
    "qwen2 yarn with a factor": Case(
        hf.Qwen2Config,
        {
            "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                "attention_factor": 1.5 * (1 + 0.1 * math.log(4.0)),
            },
        },
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
            "rope.scaling.attn_factor": 1.5,
        },
    ),
    "qwen3": Case(hf.Qwen3Config, {"head_dim": 32}),
    "phi3": Case(hf.Phi3Config, NO_IDS),
    "phi3 partly rotated": Case(
        hf.Phi3Config,
        {**NO_IDS, "num_attention_heads": 2, "partial_rotary_factor": 0.5},
        {"rope.dimension_count": 16},
    ),
    "phi2": Case(hf.PhiConfig, {**NO_IDS, "num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "smollm3": Case(hf.SmolLM3Config, {**NO_IDS, "num_hidden_layers": 5}),
    "lfm2": Case(
        hf.Lfm2Config,
        {
            **NO_IDS, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"],
            "block_auto_adjust_ff_dim": False, "tie_word_embeddings": True,
        },
    ),
    "mamba2": Case(lambda **_: hf.Mamba2Config(**STATES, n_groups=2)),
    "granitehybrid": Case(
        hf.GraniteMoeHybridConfig,
        {
            **HYBRID, "num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 96,
            "tie_word_embeddings": True,
        },
    ),
    "granitehybrid with experts": Case(
        hf.GraniteMoeHybridConfig,
        {
            **HYBRID, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64,
            "position_embedding_type": "rope", "mamba_n_groups": 2,
        },
    ),
    "olmo": Case(hf.OlmoConfig, {"clip_qkv": 0.7}, {"attention.clamp_kqv": 0.7}),
    "olmo2": Case(hf.Olmo2Config),
    "olmo3": Case(
        hf.Olmo3Config, {"num_hidden_layers": 4, "sliding_window": 8}, {"attention.sliding_window": 8}
    ),
    "granite": Case(
        hf.GraniteConfig,
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 4.0},
    ),
    "stablelm": Case(hf.StableLmConfig, {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "stablelm side by side": Case(
        hf.StableLmConfig, {"use_parallel_residual": True}, {"use_parallel_residual": True}
    ),
    "starcoder": Case(
        lambda **_: hf.GPTBigCodeConfig(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=128, **NO_IDS)
    ),
    "bloom": Case(
        lambda **_: hf.BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4, seq_length=128, **NO_IDS)
    ),
    "gemma": Case(hf.GemmaConfig, {"head_dim": 16}),
    "gemma2": Case(
        hf.Gemma2Config,
        {**GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
        {"attention.sliding_window": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
    ),
    "gemma3": Case(
        hf.Gemma3TextConfig,
        {**GEMMA, "num_hidden_layers": 7, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"attention.sliding_window": 8, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    # Whose 20 first layers llama.cpp takes for those with keys and values, and 10 for those with sparse gates.
    "gemma3n": Case(
        hf.Gemma3nTextConfig,
        {
            "head_dim": 16, "sliding_window": 8, "num_hidden_layers": 25, "num_kv_shared_layers": 5, "laurel_rank": 64,
            "vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 256,
        },
        {"final_logit_softcapping": 30.0},
        added=0.15,
    ),
    "gpt2": Case(
        lambda **_: hf.GPT2Config(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=128, **NO_IDS)
    ),
    "gptneox": Case(hf.GPTNeoXConfig, {"rotary_pct": 0.5}),
    "gptneox one after the other": Case(hf.GPTNeoXConfig, {"rotary_pct": 1.0, "use_parallel_residual": False}),
    "starcoder2": Case(hf.Starcoder2Config, {"sliding_window": None, "tie_word_embeddings": False}),
    "arcee": Case(hf.ArceeConfig, {**NO_IDS, "head_dim": 16}, {"rope.dimension_count": 16}),
    "command-r": Case(hf.CohereConfig, {**NO_IDS, "logit_scale": 0.5}, {"logit_scale": 0.5}),
    "cohere2": Case(
        hf.Cohere2Config,
        {**NO_IDS, "logit_scale": 0.5, "sliding_window": 8, "num_hidden_layers": 5},
        {"logit_scale": 0.5, "attention.sliding_window": 8},
    ),
    "ernie4_5": Case(hf.Ernie4_5Config, {**NO_IDS, "head_dim": 16, "num_hidden_layers": 3}),
    # With windows, llama.cpp takes a model of 64 layers alone.
    "exaone4": Case(hf.Exaone4Config, {**NO_IDS, "sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "glm4": Case(hf.Glm4Config, {**NO_IDS, "head_dim": 32}, {"rope.dimension_count": 16}),
    "hunyuan": Case(hf.HunYuanDenseV1Config, {**NO_IDS, "head_dim": 16}),
    "nemotron": Case(hf.NemotronConfig, {**NO_IDS, "num_attention_heads": 2}, {"rope.dimension_count": 16}),
    "seed_oss": Case(hf.SeedOssConfig, {**NO_IDS, "head_dim": 16}),
    "starcoder2 tied": Case(hf.Starcoder2Config, {"sliding_window": None}),
    "falcon": Case(hf.FalconConfig, NO_IDS),
    "falcon 40b": Case(hf.FalconConfig, {**NO_IDS, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon 2": Case(
        hf.FalconConfig,
        {**NO_IDS, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        {"rope.freq_base": 10000.0},
    ),
    "mpt": Case(lambda **_: hf.MptConfig(vocab_size=VOCAB, d_model=96, n_heads=6, n_layers=2, max_seq_len=128)),
    "apertus": Case(hf.ApertusConfig, {**NO_IDS, "head_dim": 16, "rope_scaling": LLAMA3}),
    # This llama.cpp takes the one activation for all; later ones read which it is.
    "bitnet": Case(
        hf.BitNetConfig,
        {**NO_IDS, "tie_word_embeddings": True, "hidden_act": "silu"},
        {"hidden_activation": "silu"},
    ),
    "chatglm": Case(hf.GlmConfig, {**NO_IDS, "head_dim": 16, "attention_bias": True}, {"rope.dimension_count": 8}),
    "mistral3": Case(hf.MistralConfig, {"head_dim": 32, "sliding_window": None}, {}, "mistral3"),
    "qwen2vl": Case(
        Qwen2VLTextConfig,
        {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": True},
        {"rope.dimension_sections": [2, 3, 3, 0]},
        model=hf.Qwen2VLTextModel,
    ),
    "qwen3vl": Case(
        Qwen3VLTextConfig,
        {
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": True,
            "head_dim": 16,
        },
        {"rope.dimension_sections": [2, 3, 3, 0], "n_deepstack_layers": 0},
        model=hf.Qwen3VLTextModel,
    ),
}  # fmt: skip


def seeded(model: torch.nn.Module) -> torch.nn.Module:
    """With norms and biases that are random too: 1 and 0 would hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    return model.eval()


def exported(gguf: Path, path: Path) -> Any:
    edgellm_export.export(gguf, path, precision="fp32", verify_quality=False)
    return edgellm.load(path, threads=1)


@pytest.mark.parametrize("name", DECODERS)
def test_logits_of_decoders(llamacpp: Peer, tmp_path: Path, name: str) -> None:
    case = DECODERS[name]
    config = case.config(**{**SIZES, **case.changes})
    make = case.model or (lambda of: hf.AutoModelForCausalLM.from_config(of, attn_implementation="eager"))
    model = seeded(make(config).float())
    with torch.no_grad():
        for parameter in (each for part, each in model.named_parameters() if ADDED.search(part)):
            parameter.mul_(case.added)
    gguf = convert(tmp_path / "model.gguf", model, BYTES, case.metadata, arch=case.arch)
    ids = np.random.default_rng(3).integers(0, VOCAB - 1, 40).tolist()
    expected = np.array(llamacpp.ask("logits", model=str(gguf), ids=ids))
    ours = exported(gguf, tmp_path / "package").logits(ids)
    assert relative_rms(np.asarray(ours), expected) < NEAR


TYPES = [name for name in (*QUANTIZABLE, *READABLE) if name != "F32"]


@pytest.mark.parametrize("name", TYPES)
def test_numbers_of_each_type(llamacpp: Peer, name: str) -> None:
    """Random bits that are numbers: scales with small exponents."""
    kind = gguf.GGMLQuantizationType[name]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = np.random.default_rng(5).integers(0, 120, (40, size), np.uint8)
    expected = np.array(llamacpp.ask("dequantized", kind=int(kind), blocks=blocks.tobytes().hex()), np.float32)
    with np.errstate(all="ignore"):
        found = gguf.quants.dequantize(blocks, kind).reshape(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


WORDS = words("the", "cat", "s", "sat", "##s", "##at", "c", "##t", "!", "you", "\u00e9t\u00e9", "\u4f60", "e", "##e")
PIECES = pieces("\u2581", "\u2581the", "\u2581c", "at", "c", "a", "t", "s", "th", "e", "\u2581s", "!", "\u00e9", "h")
XLMR = pieces(
    *("\u2581", "\u2581the", "\u2581c", "at", "c", "a", "t", "s", "th", "e", "\u2581s", "!", "\u00e9", "h"),
    special={"<s>": 3, "<pad>": 3, "</s>": 3, "<unk>": 2},
    bos_token_id=0, padding_token_id=1, eos_token_id=2, unknown_token_id=3, add_bos_token=True, add_eos_token=True,
)  # fmt: skip
ROBERTA = byte_level(
    control=("<s>", "<pad>", "</s>", "<mask>"), merges=("t h", "th e"), pre="roberta-bpe", bos_token_id=258,
    padding_token_id=1, eos_token_id=260, mask_token_id=261, add_bos_token=True, add_eos_token=True,
)  # fmt: skip
ENCODERS = {
    "bert": (hf.BertConfig, hf.BertModel, WORDS),
    "distilbert": (hf.DistilBertConfig, hf.DistilBertModel, WORDS),
    "roberta": (hf.RobertaConfig, hf.RobertaModel, ROBERTA),
    "xlm-roberta": (hf.XLMRobertaConfig, hf.XLMRobertaModel, XLMR),
}


def encoder(name: str, model_class: Any = None, **changes: Any) -> tuple[Any, dict[str, Any]]:
    config_class, usual, tokenizer = ENCODERS[name]
    size = len(tokenizer["tokenizer.ggml.tokens"])
    settings: dict[str, Any] = {**SIZES, "vocab_size": size, "pad_token_id": 1 if "roberta" in name else 0}
    if name == "distilbert":
        settings |= {"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4}
    config = config_class(**{**settings, "type_vocab_size": 1 if "roberta" in name else 2, **changes})
    return seeded((model_class or usual)(config)), tokenizer


@pytest.mark.parametrize("pooling", [0, 1, 2], ids=["states", "mean", "cls"])
@pytest.mark.parametrize("name", ENCODERS)
def test_states_and_vectors_of_encoders(llamacpp: Peer, tmp_path: Path, name: str, pooling: int) -> None:
    model, tokenizer = encoder(name)
    gguf = convert(tmp_path / "model.gguf", model, tokenizer, {"pooling_type": pooling})
    texts = ["the cat sat!", "\u00e9 the s at", "cats"]
    inputs = llamacpp.ask("tokens", model=str(gguf), texts=texts, parse_special=True)
    expected = llamacpp.ask("embeddings", model=str(gguf), inputs=inputs, pooled=pooling > 0)
    ours = exported(gguf, tmp_path / "package")
    tokenizer = Tokenizer.from_file(str(tmp_path / "package" / "tokenizer.json"))
    assert [tokenizer.encode(text).ids for text in texts] == inputs
    if pooling:
        vectors = np.array(expected)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assert relative_rms(ours.embed(texts), vectors) < NEAR
    else:
        for text, states in zip(texts, expected, strict=True):
            found = ours.run([text])
            assert relative_rms(np.asarray(found[0].outputs["last_hidden_state"]), np.array(states)) < NEAR


T5 = {"vocab_size": len(PIECES["tokenizer.ggml.tokens"]), "d_model": 64, "d_ff": 96, "d_kv": 16, "num_heads": 4}


def modernbert() -> tuple[Any, dict[str, Any]]:
    config = hf.ModernBertConfig(
        **{**SIZES, "num_hidden_layers": 4, "vocab_size": len(ROBERTA["tokenizer.ggml.tokens"]), "pad_token_id": 1},
        local_attention=6, global_rope_theta=50000.0, local_rope_theta=20000.0,
    )  # fmt: skip
    return seeded(hf.ModernBertModel(config)), ROBERTA | {"tokenizer.ggml.pre": "modern-bert"}


def embedding_gemma() -> tuple[Any, dict[str, Any]]:
    """Each sixth layer sees everything, the others half of a window of 8 to either side."""
    types = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(7)]
    config = hf.Gemma3TextConfig(
        **{**SIZES, **GEMMA, "num_hidden_layers": 7}, layer_types=types, use_bidirectional_attention=True
    )
    return seeded(hf.Gemma3TextModel(config)), BYTES | {"tokenizer.ggml.add_eos_token": True}


FURTHER = {"modern-bert": (modernbert, {}), "gemma-embedding": (embedding_gemma, {"attention.sliding_window": 8})}


@pytest.mark.parametrize("pooling", [1, 2, 3], ids=["mean", "cls", "last"])
@pytest.mark.parametrize("name", FURTHER)
def test_vectors_of_further_encoders(llamacpp: Peer, tmp_path: Path, name: str, pooling: int) -> None:
    (make, more), texts = FURTHER[name], ["the cat sat!", "\u00e9 the s at, and then some more of it", "cats"]
    model, tokenizer = make()
    gguf = convert(tmp_path / "model.gguf", model, tokenizer, {**more, "pooling_type": pooling}, arch=name)
    same_vectors(llamacpp, gguf, tmp_path / "package", texts)


def test_vectors_through_linear_layers(llamacpp: Peer, tmp_path: Path) -> None:
    model, tokenizer = embedding_gemma()
    random = np.random.default_rng(7)
    layers = {"dense_2": (96, 64), "dense_3": (64, 96)}
    sizes = {"dense_2_feat_in": 64, "dense_2_feat_out": 96, "dense_3_feat_in": 96, "dense_3_feat_out": 64}
    tensors = {f"{name}.weight": random.standard_normal(shape).astype(np.float32) for name, shape in layers.items()}
    metadata = {"attention.sliding_window": 8, "pooling_type": 1, **sizes}
    gguf = convert(tmp_path / "model.gguf", model, tokenizer, metadata, tensors, arch="gemma-embedding")
    same_vectors(llamacpp, gguf, tmp_path / "package", ["the cat sat!", "\u00e9 the s at", "cats"])


def test_vectors_of_nomic_bert(llamacpp: Peer, tmp_path: Path) -> None:
    """Of no model of transformers 4; tests/parity has it beside transformers 5."""
    size, random = len(WORDS["tokenizer.ggml.tokens"]), np.random.default_rng(7)

    def numbers(*shape: int) -> np.ndarray:
        scale, middle = (0.2, 1.0) if len(shape) == 1 else (0.15, 0.0)
        return (random.standard_normal(shape) * scale + middle).astype(np.float32)

    tensors = {"token_embd.weight": numbers(size, 64), "token_types.weight": numbers(2, 64)}
    norms = ["token_embd_norm", *(f"blk.{i}.{part}_output_norm" for i in range(2) for part in ("attn", "layer"))]
    tensors |= {f"{norm}.{kind}": numbers(64) for norm in norms for kind in ("weight", "bias")}
    shapes = {"attn_qkv": (192, 64), "attn_output": (64, 64), "ffn_down": (64, 96)}
    shapes |= dict.fromkeys(("ffn_up", "ffn_gate"), (96, 64))
    tensors |= {f"blk.{i}.{part}.weight": numbers(*shape) for i in range(2) for part, shape in shapes.items()}
    metadata = {
        "block_count": 2, "context_length": 128, "embedding_length": 64, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.layer_norm_epsilon": 1e-12, "attention.causal": False,
        "rope.freq_base": 1000.0, "pooling_type": 1, "tokenizer.ggml.token_type_count": 2,
    }  # fmt: skip
    gguf = write_gguf(tmp_path / "model.gguf", "nomic-bert", metadata | WORDS, tensors)
    same_vectors(llamacpp, gguf, tmp_path / "package", ["the cat sat!", "\u00e9 the s at the cat sat", "cats"])


@pytest.mark.parametrize("pooling", [1, 3], ids=["mean", "last"])
def test_vectors_of_decoders(llamacpp: Peer, tmp_path: Path, pooling: int) -> None:
    model = seeded(hf.AutoModelForCausalLM.from_config(hf.Qwen3Config(**SIZES, head_dim=32)))
    tokenizer = BYTES | {"tokenizer.ggml.add_eos_token": True}
    gguf = convert(tmp_path / "model.gguf", model, tokenizer, {"pooling_type": pooling})
    same_vectors(llamacpp, gguf, tmp_path / "package", ["the cat sat!", "\u00e9 the s", "cats"], decoder=True)


def same_vectors(llamacpp: Peer, gguf: Path, package: Path, texts: list[str], *, decoder: bool = False) -> None:
    inputs = llamacpp.ask("tokens", model=str(gguf), texts=texts, parse_special=True)
    vectors = np.array(llamacpp.ask("embeddings", model=str(gguf), inputs=inputs, pooled=True, decoder=decoder))
    ours = exported(gguf, package)
    tokenizer = Tokenizer.from_file(str(package / "tokenizer.json"))
    assert [tokenizer.encode(text).ids for text in texts] == inputs
    assert relative_rms(ours.embed(texts), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) < NEAR


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
@pytest.mark.parametrize("family", ["T5", "UMT5"])
def test_logits_of_t5(llamacpp: Peer, tmp_path: Path, family: str, kind: str) -> None:
    """A tied head reads states that T5 scales and llama.cpp does not."""
    tied = kind == "relu"
    config = getattr(hf, f"{family}Config")(
        **T5, num_layers=3, num_decoder_layers=2, feed_forward_proj=kind, tie_word_embeddings=tied,
        relative_attention_num_buckets=8, decoder_start_token_id=0,
    )  # fmt: skip
    model = seeded(getattr(hf, f"{family}ForConditionalGeneration")(config))
    gguf = convert(tmp_path / "model.gguf", model, PIECES)
    source, target = [5, 6, 9, 7, 3, 1], [0, 8, 4, 6, 11]
    expected = np.array(llamacpp.ask("logits", model=str(gguf), ids=target, source=source))
    ours = np.asarray(exported(gguf, tmp_path / "package").logits(source, target))
    assert relative_rms(ours, expected * (64**-0.5 if tied else 1)) < NEAR


# All composed: Qwen's own tokenizer composes characters before it cuts, llama.cpp does not.
MERGES = (
    "t h", "h e", "\u0120 t", "i n", "e r", "1 2", "12 3", "0 0", "\u0120 \u0120", "\u010a \u010a", "\u0120 (", ". .",
    "' s", "' S", "l l", "\u0120 1", "A N", "! !", "\u0120 a", "\u010a \u0120", ") ;", "n t", "a 1", "\u00e3 \u0122",
    "\u0120 \u00e3", "! a",
)  # fmt: skip
TEXTS = [
    "the thing's in 1234567 (12,345) there; don't, DON'T!!\n\n  a",
    "  the\n\n\n in(the);a1b22 \u00e9t\u00e9 \u4f60\u597d\u4e16\u754c\u3002 \u0416\u0443\u043a's  \n",
    "for i in range(10):\n    print(the['a'], 0x00ff) # 100% ..!!\r\n\tx+=1",
    "\u0e2a\u0e27\u0e31 \u0939\u093f\u0928 \U0001f600\U0001f44d\U0001f3fd \u00bd\u2167",
    "\u00a0\u3000 a\u200bb <|end|> the<|end|>",
    *("AN ANt an'S 's'll  'LL \t\t...!?", "", " ", "\n"),
]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_tokens_of_byte_level_vocabularies(llamacpp: Peer, tmp_path: Path, pre: str) -> None:
    control = ("<|start|>", "<|end|>")
    tokenizer = byte_level(pre=pre, control=control, merges=MERGES, bos_token_id=256 + len(MERGES))
    same_tokens(llamacpp, tiny_llama(tmp_path / "model.gguf", tokenizer=tokenizer), TEXTS)


def same_tokens(llamacpp: Peer, gguf: Path, texts: list[str], plain: list[str] | None = None) -> None:
    """With control tokens in the texts found, and, of `plain` or all texts, not."""
    tokenizer = Tokenizer.from_buffer(open_checkpoint(str(gguf)).files["tokenizer.json"])
    for special, given in ((True, texts), (False, texts if plain is None else plain)):
        expected = llamacpp.ask("tokens", model=str(gguf), texts=given, parse_special=special)
        tokenizer.encode_special_tokens = not special
        assert [tokenizer.encode(text).ids for text in given] == expected


SCORED = ("\u2581", "a", "b", "c", "ab", "\u2581ab", "\u2581a", "bc", "abc", "\u2581\u2581", "\u00e9", "\u2581abc")


@pytest.mark.parametrize("more", [{}, {"add_space_prefix": False}, {"add_bos_token": False, "add_eos_token": True}])
def test_tokens_of_scored_vocabularies(llamacpp: Peer, tmp_path: Path, more: dict[str, Any]) -> None:
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *SCORED, "<tool>"]
    base = {
        "model": "llama",
        "tokens": tokens,
        "token_type": [2, 3, 3, *[6] * 256, *[1] * len(SCORED), 4],
        "scores": [*[0.0] * 259, *(float(len(piece)) - i / 16 for i, piece in enumerate(SCORED)), 0.0],
    }
    tokenizer = {f"tokenizer.ggml.{key}": value for key, value in (base | more).items()}
    texts = ["abc ab a  bcab", " ab", "\u00e9 \u4f60abc\n", "ab<tool>ab </s> abc", "aabbcc   abc", "", " "]
    same_tokens(llamacpp, tiny_llama(tmp_path / "model.gguf", tokenizer=tokenizer), texts)


@pytest.mark.parametrize(
    "more",
    [{}, {"normalizer.lowercase": False}, {"normalizer.lowercase": True, "normalizer.strip_accents": False}],
    ids=["plain", "cased", "accented"],
)
def test_tokens_of_words(llamacpp: Peer, tmp_path: Path, more: dict[str, Any]) -> None:
    tokenizer = WORDS | {f"tokenizer.ggml.{key}": value for key, value in more.items()}
    gguf = convert(tmp_path / "model.gguf", encoder("bert")[0], tokenizer)
    texts = [
        "The cat SAT!",
        "cats \u4f60\u4f60 e\u0301t\u00e9 \u00e9t\u00e9",
        "the[SEP]cat [MASK] xyz",
        "sat\tsat\u00a0the\u200b",
        "",
        "\u00c9T\u00c9",
    ]
    same_tokens(llamacpp, gguf, texts)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"remove_extra_whitespaces": False},
        {"add_space_prefix": False},
        {"add_space_prefix": False, "remove_extra_whitespaces": False},
        {"add_eos_token": False},
    ],
    ids=["plain", "every space", "no prefix", "as it is", "no end"],
)
def test_tokens_of_pieces(llamacpp: Peer, tmp_path: Path, more: dict[str, Any]) -> None:
    """Control tokens are pieces to `tokenizers`, in a text where they are not found as such, and not to llama.cpp."""
    config = hf.T5Config(**T5, num_layers=1, num_decoder_layers=1)
    tokenizer = PIECES | {f"tokenizer.ggml.{key}": value for key, value in more.items()}
    gguf = convert(tmp_path / "model.gguf", hf.T5ForConditionalGeneration(config), tokenizer)
    texts = [
        "the cat sat!",
        "the  cat",
        " the cat ",
        "\u4f60\u597d the \u00e9\u4f60",
        "a</s>the cat<unk>",
        "[PAD1]a",
        "cat\u4f60\u597dsat",
    ]
    same_tokens(llamacpp, gguf, texts, plain=[text for text in texts if "</s>" not in text])


def test_tokens_behind_a_table_of_characters(llamacpp: Peer, tmp_path: Path) -> None:
    """A vocabulary that SentencePiece trained, with its table that makes full-width letters usual ones."""
    made = io.BytesIO()
    lines = ["the cat sat on the mat", "a \u4f60\u597d mat, the 1/2 cats", "it's 12 o'clock!"] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=made, vocab_size=48, hard_vocab_limit=False, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString(made.getvalue())
    kinds, scores = [int(piece.type) for piece in model.pieces], [float(piece.score) for piece in model.pieces]
    base = {"model": "t5", "tokens": [piece.piece for piece in model.pieces], "token_type": kinds, "scores": scores}
    base |= {"add_space_prefix": True, "remove_extra_whitespaces": True}
    base |= {"precompiled_charsmap": model.normalizer_spec.precompiled_charsmap}
    tokenizer = {f"tokenizer.ggml.{key}": value for key, value in base.items()}
    config = hf.T5Config(**{**T5, "vocab_size": len(kinds)}, num_layers=1, num_decoder_layers=1)
    gguf = convert(tmp_path / "model.gguf", hf.T5ForConditionalGeneration(config), tokenizer)
    texts = [
        "\uff34\uff48\uff45 cat \u00bd \ufb01t",
        "the\u3000cat\tsat\non\u00a0a\u200b mat",
        "caf\u00e9 e\u0301 \u2460 \u2167",
        "\u00ad!",
    ]
    same_tokens(llamacpp, gguf, [*texts, *TEXTS])


def test_endings(llamacpp: Peer, tmp_path: Path) -> None:
    control = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<reponame>", "<|fim_pad|>", "<|file_sep|>", "<|tool|>")
    tokenizer = byte_level(control=control, eos_token_id=258, eot_token_id=260)
    gguf = tiny_llama(tmp_path / "model.gguf", tokenizer=tokenizer)
    size = len(tokenizer["tokenizer.ggml.tokens"])
    expected = llamacpp.ask("endings", model=str(gguf), size=size)
    assert sorted(open_checkpoint(str(gguf)).config["eos_token_id"]) == expected


@pytest.mark.real_model
def test_logits_of_a_real_model(llamacpp: Peer, smollm2_gguf: Path, smollm2_package: Callable[[str], Path]) -> None:
    """llama.cpp rounds what 4-bit matrices read to 8 bits."""
    ids = Tokenizer.from_file(str(smollm2_package("fp32") / "tokenizer.json")).encode(PROSE).ids
    expected = np.array(llamacpp.ask("logits", model=str(smollm2_gguf), ids=ids))
    ours = np.asarray(edgellm.load(smollm2_package("fp32"), threads=1).logits(ids))
    assert relative_rms(ours, expected) < 0.05
    assert (ours.argmax(-1) == expected.argmax(-1)).mean() > 0.9


PROSE = "The sky is blue because air scatters short waves of light more than long ones, which is why the sun looks red."


@pytest.mark.real_model
def test_a_real_encoder(llamacpp: Peer, minilm: Path, tmp_path: Path) -> None:
    """Tokens are the original's; llama.cpp's differ from them where marks stand on emoji and the like."""
    ids = Tokenizer.from_file(str(minilm / "tokenizer.json")).get_vocab()
    original = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    original.no_truncation()
    original.no_padding()
    vocabulary = sorted(ids, key=ids.__getitem__)
    assert vocabulary[100:104] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # ids that the file need not name
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokens = [token if token in special else f"\u2581{token}".replace("\u2581##", "") for token in vocabulary]
    kinds = [3 if token in special else 1 for token in vocabulary]
    tokenizer = {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    gguf = convert(tmp_path / "model.gguf", hf.BertModel.from_pretrained(minilm), tokenizer, {"pooling_type": 1})
    read = Tokenizer.from_buffer(open_checkpoint(str(gguf)).files["tokenizer.json"])
    for text in [*TEXTS, PROSE, "1\ufe0f\u20e3 \u00c9t\u00e9 [MASK] na\u00efve \u4f60\u597d"]:
        assert read.encode(text).ids == original.encode(text).ids
    inputs = llamacpp.ask("tokens", model=str(gguf), texts=[PROSE, "A cat sat."], parse_special=True)
    vectors = np.array(llamacpp.ask("embeddings", model=str(gguf), inputs=inputs, pooled=True))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert relative_rms(exported(gguf, tmp_path / "package").embed([PROSE, "A cat sat."]), vectors) < NEAR
