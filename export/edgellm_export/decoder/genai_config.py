"""genai_config.json: lets onnxruntime-genai load a decoder package of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.manifest import Manifest


def genai_config(manifest: Manifest, config: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content. Field names: onnxruntime-genai's reference of genai_config.json."""
    cache, tokens = manifest.kv_cache, manifest.tokens
    heads = config.get("num_attention_heads", config.get("n_head", cache.num_kv_heads))
    end = list(tokens.eos) or [manifest.vocab_size - 1]
    return {
        "model": {
            "bos_token_id": tokens.bos if tokens.bos is not None else end[0],
            "eos_token_id": end if len(end) > 1 else end[0],
            "pad_token_id": tokens.pad if tokens.pad is not None else end[0],
            "context_length": manifest.context_length,
            "type": manifest.model_type,
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
            "do_sample": False,
            "max_length": manifest.context_length,
            "num_beams": 1,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }
