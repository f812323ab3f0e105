"""Checkpoints at their full size, without weights: `python full_sizes.py OUT` with transformers 4.57 or 5.

Of the best-known checkpoint of each model type, what its config.json says of sizes, written down by hand, and how many
parameters it is published with. A directory each: config.json, and a model.safetensors with the names, types and shapes
that transformers saves, whose numbers are a hole in the file, zeros that take no room. A file parameters-VERSION.json
says how many transformers counts, and how many of these are of text. It imports nothing of edgellm.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEXT, PAIRS, VECTORS = "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModel"
SEES, SPEECH, WORDS = "AutoModelForImageTextToText", "AutoModelForSpeechSeq2Seq", "AutoModelForMaskedLM"


@dataclass(frozen=True)
class Checkpoint:
    """`parameters`: as published; None where that was not to be had. `version`: of transformers, that has the class."""

    name: str
    head: str
    parameters: int | None
    config: dict[str, Any] = field(repr=False)
    version: str = "4"

    @property
    def directory(self) -> str:
        return self.name.replace("/", "--")


def _of(name: str, model_type: str, parameters: int | None, head: str = TEXT, **config: Any) -> Checkpoint:
    version = config.pop("version", "4")
    return Checkpoint(name, head, parameters, {"model_type": model_type, **config}, version)


def _sized(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    """By the names that most configs have."""
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab, **more,
    }  # fmt: skip


def _bert(hidden: int, inner: int, layers: int, heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    found = _sized(hidden, inner, layers, heads, heads, vocab, **more)
    del found["num_key_value_heads"]
    return found


# Model types of which there is no checkpoint here, and why.
LEFT_OUT = {
    "gemma3n": "its eyes are timm's, and gemma3n_text is its model of text",
    "nomic_bert": "transformers 5 gives its tensors other names when it saves them",
    "gte": "of transformers 5 alone, and so is its name", "new": "transformers has no class of it",
    **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"), "a part of the model that sees"),
}  # fmt: skip
# In names of tensors that are not of what is built: of images, and of LED's tokens with global attention.
BESIDE_TEXT = ("vision", "visual", "projector", "connector", "image_newline", "_global")
TIED, APART = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
GEMMA2_2B = _sized(2304, 9216, 26, 8, 4, 256000, head_dim=256)
GEMMA3_TEXT = _sized(2560, 10240, 34, 8, 4, 262208, head_dim=256, rope_scaling={"rope_type": "linear", "factor": 8.0})
SIGLIP = _bert(1152, 4304, 27, 16, 0, image_size=896, patch_size=14, vision_use_head=False)
CLIP = _bert(
    1024, 4096, 24, 16, 32000, image_size=336, patch_size=14, projection_dim=768, model_type="clip_vision_model"
)
PIXTRAL = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "head_dim": 64, "image_size": 1540, "patch_size": 14,
}  # fmt: skip
MROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}
QWEN2_VL_TEXT = _sized(1536, 8960, 28, 12, 2, 151936, rope_theta=1e6, rope_scaling=MROPE, **TIED)
QWEN2_5_VL_TEXT = _sized(2048, 11008, 36, 16, 2, 151936, rope_theta=1e6, rope_scaling=MROPE, **TIED)
QWEN3_VL_TEXT = _sized(
    2048, 6144, 28, 16, 8, 151936, head_dim=128, rope_theta=5e6, **TIED,
    rope_scaling={"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
)  # fmt: skip


def _t5(hidden: int, inner: int, layers: int, heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "d_model": hidden, "d_ff": inner, "num_layers": layers, "num_heads": heads, "vocab_size": vocab,
        "decoder_start_token_id": 0, **more,
    }  # fmt: skip


def _bart(hidden: int, inner: int, layers: tuple[int, int], heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    encoder, decoder = layers
    return {
        "d_model": hidden, "encoder_ffn_dim": inner, "decoder_ffn_dim": inner, "encoder_layers": encoder,
        "decoder_layers": decoder, "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "vocab_size": vocab, **more,
    }  # fmt: skip


def _alternating(layers: int, attention: tuple[int, ...]) -> list[str]:
    return ["full_attention" if layer in attention else "conv" for layer in range(layers)]


def _hybrid(layers: int, attention: tuple[int, ...]) -> list[str]:
    return ["attention" if layer in attention else "mamba" for layer in range(layers)]


DECODERS = [
    _of("meta-llama/Llama-3.2-1B-Instruct", "llama", 1_235_814_400, **_sized(
        2048, 8192, 16, 32, 8, 128256, head_dim=64, rope_theta=5e5, rope_scaling=LLAMA3,
        max_position_embeddings=131072, **TIED)),
    _of("HuggingFaceTB/SmolLM2-135M-Instruct", "llama", 134_515_008, **_sized(576, 1536, 30, 9, 3, 49152, **TIED)),
    _of("mistralai/Mistral-7B-Instruct-v0.3", "mistral", 7_248_023_552, **_sized(4096, 14336, 32, 32, 8, 32768)),
    _of("mistralai/Ministral-8B-Instruct-2410", "ministral", 8_019_808_256, version="5", **_sized(
        4096, 12288, 36, 32, 8, 131072, head_dim=128, sliding_window=32768)),
    _of("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", 494_032_768, **_sized(896, 4864, 24, 14, 2, 151936, **TIED)),
    _of("Qwen/Qwen3-0.6B", "qwen3", 596_049_920, **_sized(1024, 3072, 28, 16, 8, 151936, head_dim=128, **TIED)),
    _of("google/gemma-2b-it", "gemma", 2_506_172_416, **_sized(2048, 16384, 18, 8, 1, 256000, head_dim=256)),
    _of("google/gemma-2-2b-it", "gemma2", 2_614_341_888, **_sized(2304, 9216, 26, 8, 4, 256000, head_dim=256)),
    _of("google/gemma-3-270m-it", "gemma3_text", 268_098_176, **_sized(640, 2048, 18, 4, 1, 262144, head_dim=256,
        max_position_embeddings=32768)),
    _of("google/gemma-3-1b-it", "gemma3_text", 999_885_952, **_sized(1152, 6912, 26, 4, 1, 262144, head_dim=256,
        max_position_embeddings=32768)),
    _of("google/gemma-3n-E2B-it", "gemma3n_text", None, **_sized(2048, 8192, 30, 8, 2, 262400, head_dim=256,
        num_kv_shared_layers=10)),
    _of("google/gemma-3n-E4B-it", "gemma3n_text", None, **_sized(2048, 16384, 35, 8, 2, 262400, head_dim=256,
        num_kv_shared_layers=15)),
    _of("microsoft/phi-2", "phi", 2_779_683_840, **_sized(
        2560, 10240, 32, 32, 32, 51200, partial_rotary_factor=0.4)),
    _of("microsoft/Phi-3.5-mini-instruct", "phi3", 3_821_079_552, **_sized(3072, 8192, 32, 32, 32, 32064)),
    _of("microsoft/Phi-4-mini-instruct", "phi3", 3_836_021_760, **_sized(
        3072, 8192, 32, 24, 8, 200064, partial_rotary_factor=0.75, pad_token_id=199999, **TIED)),
    _of("openai-community/gpt2", "gpt2", 124_439_808, n_embd=768, n_layer=12, n_head=12, vocab_size=50257),
    _of("EleutherAI/gpt-neo-125m", "gpt_neo", 125_198_592, hidden_size=768, num_layers=12, num_heads=12,
        attention_types=[[["global", "local"], 6]], vocab_size=50257),
    _of("EleutherAI/gpt-j-6b", "gptj", 6_050_882_784, n_embd=4096, n_layer=28, n_head=16, rotary_dim=64,
        vocab_size=50400, **APART),
    _of("EleutherAI/pythia-160m", "gpt_neox", 162_322_944, **_bert(768, 3072, 12, 12, 50304, rotary_pct=0.25)),
    _of("facebook/opt-125m", "opt", 125_239_296, hidden_size=768, ffn_dim=3072, num_hidden_layers=12,
        num_attention_heads=12, vocab_size=50272, word_embed_proj_dim=768),
    _of("bigscience/bloom-560m", "bloom", 559_214_592, hidden_size=1024, n_layer=24, n_head=16, vocab_size=250880),
    _of("tiiuae/falcon-7b", "falcon", 6_921_720_704, hidden_size=4544, num_hidden_layers=32, num_attention_heads=71,
        vocab_size=65024, multi_query=True, parallel_attn=True, bias=False),
    _of("tiiuae/falcon-40b", "falcon", None, hidden_size=8192, num_hidden_layers=60, num_attention_heads=128,
        num_kv_heads=8, vocab_size=65024, new_decoder_architecture=True, bias=False),
    _of("mosaicml/mpt-7b", "mpt", 6_649_286_656, d_model=4096, n_heads=32, n_layers=32, vocab_size=50432),
    _of("Salesforce/codegen-350M-mono", "codegen", 356_712_448, n_embd=1024, n_layer=20, n_head=16, rotary_dim=32,
        vocab_size=51200, **APART),
    _of("bigcode/starcoderbase-1b", "gpt_bigcode", 1_137_207_296, n_embd=2048, n_layer=24, n_head=16, n_inner=8192,
        n_positions=8192, vocab_size=49152),
    _of("bigcode/starcoder2-3b", "starcoder2", 3_030_371_328, **_sized(3072, 12288, 30, 24, 2, 49152)),
    _of("stabilityai/stablelm-2-1_6b-chat", "stablelm", 1_644_515_328, **_sized(
        2048, 5632, 24, 32, 32, 100352, partial_rotary_factor=0.25, use_qkv_bias=True)),
    _of("allenai/OLMo-1B-hf", "olmo", 1_176_764_416, **_sized(2048, 8192, 16, 16, 16, 50304, **TIED)),
    _of("allenai/OLMo-2-0425-1B-Instruct", "olmo2", 1_484_916_736, **_sized(2048, 8192, 16, 16, 16, 100352)),
    _of("allenai/Olmo-3-7B-Instruct", "olmo3", 7_298_011_136, **_sized(4096, 11008, 32, 32, 32, 100278)),
    _of("allenai/OLMoE-1B-7B-0125-Instruct", "olmoe", 6_919_161_856, **_sized(
        2048, 1024, 16, 16, 16, 50304, num_experts=64, num_experts_per_tok=8)),
    _of("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral", 46_702_792_704, **_sized(
        4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2)),
    _of("Qwen/Qwen1.5-MoE-A2.7B-Chat", "qwen2_moe", 14_315_784_192, **_sized(
        2048, 5632, 24, 16, 16, 151936, moe_intermediate_size=1408, shared_expert_intermediate_size=5632,
        num_experts=60, num_experts_per_tok=4)),
    _of("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3_moe", 30_532_122_624, **_sized(
        2048, 6144, 48, 32, 4, 151936, head_dim=128, moe_intermediate_size=768, num_experts=128,
        num_experts_per_tok=8, norm_topk_prob=True)),
    _of("microsoft/Phi-3.5-MoE-instruct", "phimoe", 41_873_153_344, **_sized(
        4096, 6400, 32, 32, 8, 32064, num_local_experts=16, attention_bias=True, lm_head_bias=True)),
    _of("openai/gpt-oss-20b", "gpt_oss", 20_914_757_184, **_sized(
        2880, 2880, 24, 64, 8, 201088, head_dim=64, num_local_experts=32, num_experts_per_tok=4)),
    _of("ibm-granite/granite-3.3-2b-instruct", "granite", 2_533_539_840, **_sized(
        2048, 8192, 40, 32, 8, 49159, **TIED)),
    _of("ibm-granite/granite-3.1-1b-a400m-instruct", "granitemoe", 1_334_628_352, **_sized(
        1024, 512, 24, 16, 8, 49155, num_local_experts=32, num_experts_per_tok=8, **TIED)),
    _of("ibm-granite/granite-4.0-350m", "granitemoehybrid", None, **_sized(
        1024, 2048, 28, 16, 4, 100352, shared_intermediate_size=2048, num_local_experts=0, num_experts_per_tok=0,
        layer_types=["attention"] * 28, position_embedding_type="rope", **TIED)),
    _of("ibm-granite/granite-4.0-h-micro", "granitemoehybrid", None, **_sized(
        2048, 8192, 40, 32, 8, 100352, shared_intermediate_size=8192, num_local_experts=0, num_experts_per_tok=0,
        layer_types=_hybrid(40, (5, 15, 25, 35)), mamba_n_heads=64, mamba_d_head=64, mamba_d_state=128, **TIED)),
    _of("ibm-granite/granite-4.0-h-tiny", "granitemoehybrid", None, **_sized(
        1536, 512, 40, 12, 4, 100352, shared_intermediate_size=1024, num_local_experts=64, num_experts_per_tok=6,
        layer_types=_hybrid(40, (5, 15, 25, 35)), mamba_n_heads=48, mamba_d_head=64, mamba_d_state=128, **TIED)),
    _of("ibm-ai-platform/Bamba-9B-v2", "bamba", None, **_sized(
        4096, 14336, 32, 32, 8, 128256, attn_layer_indices=[9, 18, 27], mamba_n_heads=128, mamba_d_state=128)),
    _of("mistralai/Mamba-Codestral-7B-v0.1", "mamba2", 7_285_403_648, hidden_size=4096, num_hidden_layers=64,
        num_heads=128, head_dim=64, n_groups=8, state_size=128, vocab_size=32768),
    _of("AntonV/mamba2-130m-hf", "mamba2", 128_989_632, version="5", hidden_size=768, num_hidden_layers=24,
        num_heads=24, head_dim=64, n_groups=1, state_size=128, vocab_size=50288, **TIED),
    _of("HuggingFaceTB/SmolLM3-3B", "smollm3", 3_075_098_624, **_sized(2048, 11008, 36, 16, 4, 128256, **TIED)),
    _of("LGAI-EXAONE/EXAONE-4.0-1.2B", "exaone4", 1_279_391_488, **_sized(
        2048, 4096, 30, 32, 8, 102400, head_dim=64, sliding_window=None, layer_types=["full_attention"] * 30, **TIED)),
    _of("baidu/ERNIE-4.5-0.3B-PT", "ernie4_5", 360_748_032, **_sized(
        1024, 3072, 18, 16, 2, 103424, head_dim=128, **TIED)),
    _of("tencent/Hunyuan-0.5B-Instruct", "hunyuan_v1_dense", None, **_sized(
        1024, 3584, 24, 16, 8, 120818, head_dim=128, **TIED)),
    _of("zai-org/glm-4-9b-chat-hf", "glm", 9_399_951_360, **_sized(
        4096, 13696, 40, 32, 2, 151552, head_dim=128, attention_bias=True)),
    _of("zai-org/GLM-4-9B-0414", "glm4", 9_400_279_040, **_sized(
        4096, 13696, 40, 32, 2, 151552, head_dim=128, attention_bias=True)),
    _of("CohereLabs/c4ai-command-r-v01", "cohere", 34_980_831_232, **_sized(8192, 22528, 40, 64, 64, 256000)),
    _of("CohereLabs/c4ai-command-r7b-12-2024", "cohere2", 8_028_033_024, **_sized(4096, 14336, 32, 32, 8, 256000)),
    _of("nvidia/Nemotron-Mini-4B-Instruct", "nemotron", None, **_sized(
        3072, 9216, 32, 24, 8, 256000, head_dim=128, partial_rotary_factor=0.5)),
    _of("kyutai/helium-1-preview-2b", "helium", None, **_sized(2560, 7040, 24, 20, 20, 48000, head_dim=128)),
    _of("microsoft/bitnet-b1.58-2B-4T-bf16", "bitnet", 2_412_820_480, **_sized(2560, 6912, 30, 20, 5, 128256, **TIED)),
    _of("swiss-ai/Apertus-8B-Instruct-2509", "apertus", 8_053_338_176, version="5", **_sized(
        4096, 21504, 32, 32, 8, 131072, qk_norm=True)),
    _of("arcee-ai/AFM-4.5B", "arcee", None, **_sized(2560, 18432, 36, 20, 4, 128004, head_dim=128)),
    _of("ByteDance-Seed/Seed-OSS-36B-Instruct", "seed_oss", 36_151_104_512, **_sized(
        5120, 27648, 64, 80, 8, 155136, head_dim=128, attention_bias=True, attention_out_bias=False)),
    _of("LiquidAI/LFM2-350M", "lfm2", 354_483_968, **_sized(
        1024, 6656, 16, 16, 8, 65536, layer_types=_alternating(16, (2, 5, 8, 10, 12, 14)), **TIED)),
    _of("LiquidAI/LFM2-1.2B", "lfm2", 1_170_340_608, **_sized(
        2048, 12288, 16, 32, 8, 65536, layer_types=_alternating(16, (2, 5, 8, 10, 12, 14)), **TIED)),
    _of("deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek_v2", 15_706_484_224, **_sized(
        2048, 10944, 27, 16, 16, 102400, moe_intermediate_size=1408, kv_lora_rank=512, q_lora_rank=None,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=64, n_shared_experts=2,
        num_experts_per_tok=6, first_k_dense_replace=1)),
    _of("moonshotai/Moonlight-16B-A3B-Instruct", "deepseek_v3", None, **_sized(
        2048, 11264, 27, 16, 16, 163840, moe_intermediate_size=1408, kv_lora_rank=512, q_lora_rank=None,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=64, n_shared_experts=2,
        num_experts_per_tok=6, first_k_dense_replace=1, n_group=1, topk_group=1, max_position_embeddings=8192)),
]  # fmt: skip

SEEING = [
    _of("google/gemma-3-4b-it", "gemma3", 4_300_079_472, SEES, text_config=GEMMA3_TEXT, vision_config=SIGLIP),
    _of("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistral3", 24_011_361_280, SEES,
        text_config=_sized(5120, 32768, 40, 32, 8, 131072, head_dim=128, model_type="mistral"), vision_config=PIXTRAL),
    _of("llava-hf/llava-1.5-7b-hf", "llava", 7_063_427_072, SEES, vision_config=CLIP,
        text_config=_sized(4096, 11008, 32, 32, 32, 32064, model_type="llama")),
    _of("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", 7_566_747_648, SEES,
        vision_config=CLIP,
        text_config=_sized(4096, 14336, 32, 32, 8, 32064, model_type="mistral")),
    _of("HuggingFaceTB/SmolVLM-256M-Instruct", "smolvlm", 256_484_928, SEES, scale_factor=4,
        text_config=_sized(576, 1536, 30, 9, 3, 49280, model_type="llama", head_dim=64),
        vision_config=_bert(768, 3072, 12, 12, 0, image_size=512, patch_size=16)),
    _of("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", None, SEES, scale_factor=2,
        text_config=_sized(4096, 14336, 32, 32, 8, 128259, model_type="llama"),
        vision_config=_bert(1152, 4304, 27, 16, 0, image_size=364, patch_size=14)),
    _of("OpenGVLab/InternVL3-1B-hf", "internvl", 938_193_024, SEES,
        text_config=_sized(896, 4864, 24, 14, 2, 151674, model_type="qwen2"),
        vision_config=_bert(1024, 4096, 24, 16, 0, image_size=[448, 448], patch_size=[14, 14], attention_bias=True)),
    _of("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", 2_208_985_600, SEES, **QWEN2_VL_TEXT,
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16}),
    _of("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 3_754_622_976, SEES, **QWEN2_5_VL_TEXT,
        vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048,
                       "num_heads": 16}),
    _of("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", 2_127_532_032, SEES, text_config=QWEN3_VL_TEXT, **TIED,
        vision_config={"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2048,
                       "num_heads": 16, "deepstack_visual_indexes": [5, 11, 17]}),
]  # fmt: skip

ENCODERS = [
    _of("google-bert/bert-base-uncased", "bert", 109_482_240, VECTORS, **_bert(768, 3072, 12, 12, 30522)),
    _of("FacebookAI/roberta-base", "roberta", 124_645_632, VECTORS, **_bert(
        768, 3072, 12, 12, 50265, max_position_embeddings=514, type_vocab_size=1)),
    _of("FacebookAI/xlm-roberta-base", "xlm-roberta", 278_043_648, VECTORS, **_bert(
        768, 3072, 12, 12, 250002, max_position_embeddings=514, type_vocab_size=1)),
    _of("facebook/xlm-roberta-xl", "xlm-roberta-xl", None, VECTORS, **_bert(
        2560, 10240, 36, 32, 250880, max_position_embeddings=514, type_vocab_size=1)),
    _of("almanach/camembert-base", "camembert", 110_621_952, VECTORS, **_bert(
        768, 3072, 12, 12, 32005, max_position_embeddings=514, type_vocab_size=1)),
    _of("facebook/data2vec-text-base", "data2vec-text", None, VECTORS, **_bert(
        768, 3072, 12, 12, 50265, max_position_embeddings=514, type_vocab_size=1)),
    _of("nghuyong/ernie-2.0-base-en", "ernie", None, VECTORS, **_bert(768, 3072, 12, 12, 30522, type_vocab_size=4)),
    _of("andreasmadsen/efficient_mlm_m0.40", "roberta-prelayernorm", None, WORDS, **_bert(
        1024, 4096, 24, 16, 50265, max_position_embeddings=514)),
    _of("facebook/esm2_t6_8M_UR50D", "esm", None, VECTORS, **_bert(
        320, 1280, 6, 20, 33, max_position_embeddings=1026, pad_token_id=1, mask_token_id=32, token_dropout=True,
        position_embedding_type="rotary")),
    _of("EuroBERT/EuroBERT-210m", "eurobert", None, WORDS, version="5", **_sized(
        768, 3072, 12, 12, 12, 128256, max_position_embeddings=8192)),
    _of("nvidia/megatron-bert-uncased-345m", "megatron-bert", None, VECTORS, **_bert(1024, 4096, 24, 16, 29056)),
    _of("google/electra-small-discriminator", "electra", None, VECTORS, **_bert(
        256, 1024, 12, 4, 30522, embedding_size=128)),
    _of("albert/albert-base-v2", "albert", 11_683_584, VECTORS, **_bert(
        768, 3072, 12, 12, 30000, embedding_size=128)),
    _of("distilbert/distilbert-base-uncased", "distilbert", 66_362_880, VECTORS, dim=768, hidden_dim=3072, n_layers=6,
        n_heads=12, vocab_size=30522),
    _of("google/rembert", "rembert", None, VECTORS, **_bert(
        1152, 4608, 32, 18, 250300, input_embedding_size=256, output_embedding_size=1664)),
    _of("junnyu/roformer_chinese_base", "roformer", None, VECTORS, **_bert(
        768, 3072, 12, 12, 50000, max_position_embeddings=1536)),
    _of("microsoft/mpnet-base", "mpnet", 109_486_464, VECTORS, **_bert(
        768, 3072, 12, 12, 30527, max_position_embeddings=514)),
    _of("microsoft/deberta-base", "deberta", 138_601_728, VECTORS, **_bert(
        768, 3072, 12, 12, 50265, relative_attention=True, pos_att_type=["c2p", "p2c"], max_relative_positions=-1,
        position_biased_input=False, type_vocab_size=0)),
    _of("microsoft/deberta-v3-base", "deberta-v2", 183_831_552, VECTORS, **_bert(
        768, 3072, 12, 12, 128100, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm",
        share_att_key=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1, position_biased_input=False,
        type_vocab_size=0)),
    _of("answerdotai/ModernBERT-base", "modernbert", 149_014_272, VECTORS, **_bert(768, 1152, 22, 12, 50368)),
]  # fmt: skip

ENCODER_DECODERS = [
    _of("google-t5/t5-small", "t5", 60_506_624, PAIRS, **_t5(512, 2048, 6, 8, 32128)),
    _of("google/flan-t5-base", "t5", 247_577_856, PAIRS, **_t5(
        768, 2048, 12, 12, 32128, feed_forward_proj="gated-gelu", **APART)),
    _of("google/mt5-small", "mt5", 300_176_768, PAIRS, **_t5(512, 1024, 8, 6, 250112, d_kv=64)),
    _of("google/umt5-small", "umt5", 306_601_984, PAIRS, **_t5(512, 1024, 8, 6, 256384, d_kv=64, **APART)),
    _of("facebook/bart-large-cnn", "bart", 406_290_432, PAIRS, **_bart(1024, 4096, (12, 12), 16, 50264)),
    _of("facebook/mbart-large-50-many-to-many-mmt", "mbart", 610_879_488, PAIRS, **_bart(
        1024, 4096, (12, 12), 16, 250054)),
    _of("Helsinki-NLP/opus-mt-en-de", "marian", None, PAIRS, **_bart(
        512, 2048, (6, 6), 8, 58101, decoder_vocab_size=58101, max_position_embeddings=512,
        decoder_start_token_id=58100, pad_token_id=58100)),
    _of("google/pegasus-xsum", "pegasus", None, PAIRS, **_bart(
        1024, 4096, (16, 16), 16, 96103, max_position_embeddings=512)),
    _of("facebook/m2m100_418M", "m2m_100", 483_905_536, PAIRS, **_bart(1024, 4096, (12, 12), 16, 128112)),
    _of("facebook/nllb-200-distilled-600M", "m2m_100", 615_073_792, PAIRS, **_bart(1024, 4096, (12, 12), 16, 256206)),
    _of("facebook/blenderbot-400M-distill", "blenderbot", None, PAIRS, **_bart(
        1280, 5120, (2, 12), 32, 8008, max_position_embeddings=128)),
    _of("facebook/blenderbot_small-90M", "blenderbot-small", 87_508_992, PAIRS, **_bart(
        512, 2048, (8, 8), 16, 54944, max_position_embeddings=512)),
    _of("google/long-t5-local-base", "longt5", None, PAIRS, **_t5(
        768, 2048, 12, 12, 32128, feed_forward_proj="gated-gelu", **APART)),
    _of("allenai/led-base-16384", "led", 161_844_480, PAIRS, **_bart(
        768, 3072, (6, 6), 12, 50265, attention_window=[1024] * 6)),
    _of("microsoft/prophetnet-large-uncased", "prophetnet", None, PAIRS, hidden_size=1024, encoder_ffn_dim=4096,
        decoder_ffn_dim=4096, num_encoder_layers=12, num_decoder_layers=12, num_encoder_attention_heads=16,
        num_decoder_attention_heads=16, vocab_size=30522, max_position_embeddings=512, ngram=2, num_buckets=32,
        relative_max_distance=128, pad_token_id=0, bos_token_id=102, eos_token_id=102, decoder_start_token_id=102),
    _of("google/t5gemma-2b-2b-prefixlm-it", "t5gemma", None, PAIRS, encoder=GEMMA2_2B,
        decoder={**GEMMA2_2B, "cross_attention_hidden_size": 2304}),
    _of("UsefulSensors/moonshine-tiny", "moonshine", 27_092_736, SPEECH, hidden_size=288, intermediate_size=1152,
        encoder_num_hidden_layers=6, decoder_num_hidden_layers=6, max_position_embeddings=194),
    _of("openai/whisper-tiny", "whisper", 37_760_640, SPEECH, **_bart(384, 1536, (4, 4), 6, 51865)),
    _of("openai/whisper-large-v3-turbo", "whisper", 808_878_080, SPEECH, **_bart(
        1280, 5120, (32, 4), 20, 51866, num_mel_bins=128)),
]  # fmt: skip

CHECKPOINTS = [*DECODERS, *SEEING, *ENCODERS, *ENCODER_DECODERS]


def saved_names(model: Any) -> Iterator[tuple[str, Any]]:
    """What `save_pretrained` writes: what is shared once."""
    yield from model.named_parameters()
    apart = {
        f"{place}.{name}".lstrip(".")
        for place, module in model.named_modules()
        for name in getattr(module, "_non_persistent_buffers_set", ())
    }
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name not in apart)


def write(hf: Any, checkpoint: Checkpoint, out: Path) -> tuple[int, int]:
    """The number of its parameters, and of those of text."""
    import torch

    settings = dict(checkpoint.config)
    config = hf.AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.device("meta"):
        model = getattr(hf, checkpoint.head).from_config(config)
    model.tie_weights()
    out.mkdir(parents=True)
    config.architectures = [type(model).__name__]
    config.save_pretrained(out)
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in saved_names(model):
        size = 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (out / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
        if "lm_head.weight" in header:  # a head that is equal to the embedding counts as tied
            file.seek(8 + len(text) + header["lm_head.weight"]["data_offsets"][0])
            file.write(b"\x80\x3f")
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    text_alone = [size for name, size in sizes.items() if not any(part in name for part in BESIDE_TEXT)]
    return sum(sizes.values()), sum(text_alone)


def main() -> None:
    import transformers

    out, version = Path(sys.argv[1]), transformers.__version__.partition(".")[0]
    counts = {
        each.name: write(transformers, each, out / each.directory) for each in CHECKPOINTS if each.version == version
    }
    (out / f"parameters-{version}.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
