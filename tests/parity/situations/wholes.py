"""Models that read images, too: their text models, of which a package is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from making import Edit, Situation, byte_tokenizer, seeded
from situations.decoders import IDS, SIZES

SEEING = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
CLIP = {**SEEING, "model_type": "clip_vision_model"}
QWEN = {"depth": 1, "num_heads": 2}
QWEN3 = {**QWEN, "hidden_size": 32, "out_hidden_size": 48, "intermediate_size": 48}
SECTIONS = {"rope_type": "default", "mrope_section": [2, 3, 3]}


def whole(name: str, config: str, vision: Mapping[str, Any], *edits: Edit, **text: Any) -> Situation:
    """`text`: of the text model, beside SIZES, but for what begins with whole_."""
    more = {key.removeprefix("whole_"): text.pop(key) for key in [*text] if key.startswith("whole_")}

    def make(hf: Any, path: Path) -> None:
        tokenizer = byte_tokenizer(hf)
        inner = {**SIZES, **IDS, "vocab_size": len(tokenizer), **text}
        made = getattr(hf, config)(text_config=inner, vision_config=dict(vision), **more)
        seeded(hf, made, "AutoModelForImageTextToText", name).save_pretrained(path)
        tokenizer.save_pretrained(path)
        for edit in edits:
            edit(path)

    return Situation(name, make)


SITUATIONS = [
    whole("whole-gemma3", "Gemma3Config", SEEING, sliding_window=12, num_hidden_layers=6, whole_mm_tokens_per_image=1),
    whole("whole-idefics3", "Idefics3Config", SEEING, model_type="llama"),
    whole("whole-smolvlm", "SmolVLMConfig", SEEING, model_type="llama", rope_theta=1e5),
    whole("whole-llava", "LlavaConfig", CLIP, model_type="llama"),
    whole("whole-llava_next", "LlavaNextConfig", CLIP, model_type="mistral", sliding_window=13),
    whole("whole-mistral3", "Mistral3Config", {**SEEING, "model_type": "pixtral"}, model_type="mistral", head_dim=32),
    whole(
        "whole-internvl",
        "InternVLConfig",
        {**SEEING, "image_size": [28, 28], "patch_size": [14, 14]},
        model_type="qwen2",
        hidden_size=96,
    ),
    whole(
        "whole-qwen2_vl",
        "Qwen2VLConfig",
        {**QWEN, "embed_dim": 32, "hidden_size": 96},
        hidden_size=96,
        rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]},
    ),
    whole(
        "whole-qwen2_5_vl",
        "Qwen2_5_VLConfig",
        {**QWEN3, "out_hidden_size": 96},
        hidden_size=96,
        rope_scaling=SECTIONS,
        tie_word_embeddings=True,
        whole_tie_word_embeddings=True,
    ),
    whole(
        "whole-qwen3_vl",
        "Qwen3VLConfig",
        {**QWEN3, "deepstack_visual_indexes": [0]},
        rope_scaling={**SECTIONS, "mrope_interleaved": True},
    ),
]
