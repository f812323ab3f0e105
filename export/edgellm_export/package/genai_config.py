"""genai_config.json: lets onnxruntime-genai load a decoder package of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from edgellm.package.manifest import DecoderFacts, Manifest, is_of

INPUTS = ("input_ids", "attention_mask", "position_ids")
OPTIONAL = {"logits_to_keep", "rope_length"}
SIDES = ("key", "value")
# What a package's generation_config.json may say that onnxruntime-genai does too; its defaults, those of transformers.
SEARCH: Mapping[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "min_length": 0,
}


def can_run(manifest: Manifest) -> TypeGuard[Manifest[DecoderFacts]]:
    """Whether onnxruntime-genai has an input for each of the package's."""
    graphs = manifest.graphs
    needed = {name for graph in graphs.values() for name in graph.inputs} - OPTIONAL
    return is_of(manifest, DecoderFacts) and graphs.keys() == {"model"} and needed <= {*INPUTS}


def genai_config(
    manifest: Manifest[DecoderFacts], config: Mapping[str, Any], generation: Mapping[str, Any], *, known: bool = False
) -> dict[str, Any]:
    """The file's content, of config.json and generation_config.json. Field names: onnxruntime-genai's reference.
    `known`: it knows the model_type, for a graph like this one; "decoder" is its name for ours without a family."""
    cache, tokens, graph = manifest.model.cache, manifest.tokens, manifest.graphs["model"]
    heads = config.get("num_attention_heads", config.get("n_head", cache.num_kv_heads))
    special = {"bos_token_id": tokens.bos, "pad_token_id": tokens.pad}
    in_place = cache.growth == "in_place"
    return {
        "model": {
            **{name: token for name, token in special.items() if token is not None},
            "eos_token_id": tokens.eos[0] if len(tokens.eos) == 1 else list(tokens.eos),
            "context_length": manifest.context_length,
            "type": manifest.model_type if known else "decoder",
            "vocab_size": manifest.vocab_size,
            "decoder": {
                "filename": graph.file,
                "session_options": {"provider_options": [] if manifest.target == "cpu" else [{"cuda": {}}]},
                "head_size": cache.head_dim,
                "hidden_size": config.get("hidden_size", config.get("n_embd", heads * cache.head_dim)),
                "num_attention_heads": heads,
                "num_hidden_layers": cache.num_layers,
                "num_key_value_heads": cache.num_kv_heads,
                "inputs": {
                    **{name: name for name in INPUTS if name in graph.inputs},
                    **{f"past_{side}_names": _name(cache.past, side) for side in SIDES},
                },
                "outputs": {
                    "logits": "logits",
                    **{f"present_{side}_names": _name(cache.present, side) for side in SIDES},
                },
            },
        },
        "search": {
            **{name: _number(generation.get(name), default) for name, default in SEARCH.items()},
            "max_length": manifest.context_length,
            "num_beams": 1,
            "past_present_share_buffer": in_place,
        },
    }


def _name(pattern: str, side: str) -> str:
    return pattern.format(layer="%d", side=side)


def _number(value: Any, default: Any) -> Any:
    """A setting of generation_config.json, where it is one at all."""
    fits = isinstance(value, bool) if isinstance(default, bool) else type(value) in (int, float)
    return value if fits else default
