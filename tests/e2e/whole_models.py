"""Tiny models that read images, too, made by transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

SIZES: dict[str, Any] = {
    "vocab_size": 131, "hidden_size": 64, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SEEING: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
CLIP = {**SEEING, "model_type": "clip_vision_model"}
SECTIONS = {"type": "mrope", "mrope_section": [2, 3, 3]}
MIXED = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
QWEN = {"depth": 1, "num_heads": 2}


@dataclass(frozen=True)
class Whole:
    """`text`: what its text model has beside SIZES. `vision`: of the rest."""

    config: Callable[..., Any]
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    more: Mapping[str, Any] | None = None


def _gemma3n(*, text_config: Any, vision_config: Any, **more: Any) -> Any:
    """Its eyes are another model's: those of its own are in no dependency of ours. What it has for tokens of images
    and audio begins behind those of text."""
    eyes = hf.SiglipVisionConfig(**vision_config, rms_norm_eps=1e-6, vocab_offset=131, vocab_size=8)
    ears = hf.Gemma3nAudioConfig(
        vocab_size=8, vocab_offset=139, hidden_size=32, conf_num_attention_heads=2, conf_num_hidden_layers=1,
        sscp_conv_channel_size=(4, 4), input_feat_size=16,
    )  # fmt: skip
    text = hf.Gemma3nTextConfig(**text_config)
    return hf.Gemma3nConfig(text_config=text, vision_config=eyes, audio_config=ears, **more)


WHOLES = {
    "gemma3": Whole(
        hf.Gemma3Config,
        {"head_dim": 16, "sliding_window": 12, "num_hidden_layers": 6},
        SEEING,
        {"mm_tokens_per_image": 1},
    ),
    "gemma3n": Whole(
        _gemma3n,
        {
            "head_dim": 16,
            "sliding_window": 12,
            "num_hidden_layers": 5,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
            "laurel_rank": 8,
            "vocab_size_per_layer_input": 131,
            "hidden_size_per_layer_input": 24,
            "activation_sparsity_pattern": [0.9, 0.0, 0.5, 0.0, 0.0],
            "intermediate_size": [88, 64, 80, 96, 88],
        },
        SEEING,
    ),
    "qwen2_vl": Whole(hf.Qwen2VLConfig, {"rope_scaling": SECTIONS}, {**QWEN, "embed_dim": 32, "hidden_size": 64}),
    "qwen2_5_vl": Whole(
        hf.Qwen2_5_VLConfig,
        {"rope_scaling": SECTIONS, "tie_word_embeddings": True},
        {**QWEN, "hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48},
    ),
    "qwen3_vl": Whole(
        hf.Qwen3VLConfig,
        {"rope_scaling": MIXED, "head_dim": 16},
        {**QWEN, "hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "deepstack_visual_indexes": [0]},
    ),
    "smolvlm": Whole(hf.SmolVLMConfig, {"model_type": "llama"}, SEEING),
    "idefics3": Whole(hf.Idefics3Config, {"model_type": "llama", "tie_word_embeddings": True}, SEEING),
    "llava": Whole(hf.LlavaConfig, {"model_type": "llama"}, CLIP),
    "llava_next": Whole(hf.LlavaNextConfig, {"model_type": "mistral", "sliding_window": 13}, CLIP),
    "mistral3": Whole(
        hf.Mistral3Config,
        {"model_type": "mistral", "sliding_window": None, "head_dim": 32},
        {**SEEING, "model_type": "pixtral"},
    ),
    "internvl": Whole(
        hf.InternVLConfig, {"model_type": "qwen2"}, {**SEEING, "image_size": [28, 28], "patch_size": [14, 14]}
    ),
}


def make_whole(name: str) -> Any:
    """The seeded torch model in float32, eager, as `families.make_model` makes others."""
    torch.manual_seed(sum(map(ord, name)))
    whole = WHOLES[name]
    config = whole.config(
        text_config={**SIZES, **whole.text}, vision_config=dict(whole.vision), **(whole.more or {}),
        tie_word_embeddings=whole.text.get("tie_word_embeddings", name.startswith("gemma3")),
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = hf.AutoModelForImageTextToText.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    model.generation_config = hf.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return model
