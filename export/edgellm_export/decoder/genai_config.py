"""genai_config.json: lets onnxruntime-genai load a decoder package of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.manifest import Manifest

# onnxruntime-genai knows these families as another kind of graph; "decoder" is its name for ours, without a family.
OTHER_GRAPHS = {"gpt2"}
# What a package's generation_config.json may say that onnxruntime-genai does too; its defaults, those of transformers.
SEARCH: Mapping[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "min_length": 0,
}


def genai_config(manifest: Manifest, config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content, of config.json and generation_config.json. Field names: onnxruntime-genai's reference."""
    cache, tokens = manifest.kv_cache, manifest.tokens
    heads = config.get("num_attention_heads", config.get("n_head", cache.num_kv_heads))
    special = {"bos_token_id": tokens.bos, "pad_token_id": tokens.pad}
    return {
        "model": {
            **{name: token for name, token in special.items() if token is not None},
            "eos_token_id": tokens.eos[0] if len(tokens.eos) == 1 else list(tokens.eos),
            "context_length": manifest.context_length,
            "type": "decoder" if manifest.model_type in OTHER_GRAPHS else manifest.model_type,
            "vocab_size": manifest.vocab_size,
            "decoder": {
                "filename": manifest.graphs["model"].file,
                "session_options": {"provider_options": [] if manifest.target == "cpu" else [{"cuda": {}}]},
                "head_size": cache.head_dim,
                "hidden_size": config.get("hidden_size", config.get("n_embd")),
                "num_attention_heads": heads,
                "num_hidden_layers": cache.num_layers,
                "num_key_value_heads": cache.num_kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            **{name: _number(generation.get(name), default) for name, default in SEARCH.items()},
            "max_length": manifest.context_length,
            "num_beams": 1,
            "past_present_share_buffer": True,
        },
    }


def _number(value: Any, default: Any) -> Any:
    """A setting of generation_config.json, where it is one at all."""
    fits = isinstance(value, bool) if isinstance(default, bool) else type(value) in (int, float)
    return value if fits else default
