"""Models that read images, too: the model of text inside of one, by itself.

With text alone it gets what the whole gives it: token ids, and positions that are the same in all of M-RoPE's sections
(Wang et al., arXiv 2409.12191), which then is a rope like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgellm.errors import CheckpointError
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.config import short
from edgellm_export.checkpoint.tensors import LazyTensor

# The whole's model_type: that of its text model, where text_config does not say another.
WHOLES = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "idefics3": "llama",
    "internvl": "qwen2",
    "llava": "llama",
    "llava_next": "llama",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "smolvlm": "llama",
}
# Older ones have the text model's keys in config.json itself, beside vision_config.
FLAT = ("qwen2_5_vl", "qwen2_vl")
# Names of the text model's tensors begin so, but for the head's; the first that occurs holds for all.
PREFIXES = ("language_model.model.", "model.language_model.", "model.text_model.", "text_model.", "language_model.")
HEADS = ("lm_head.weight", "language_model.lm_head.weight")
# Those of the other parts, after "model." or without it.
OTHERS = (
    "audio_tower", "connector", "embed_audio", "embed_vision", "image_newline", "multi_modal_projector", "vision_model",
    "vision_tower", "visual",
)  # fmt: skip
TIED = "tie_word_embeddings"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def text_model(checkpoint: Checkpoint) -> Checkpoint:
    """The text model of a checkpoint that is of WHOLES, whose `source` then says what it is of, as "text_of", and which
    parts it leaves out, as "left_out": their tensors are never read. Another checkpoint as it is. Raises
    CheckpointError."""
    kind = checkpoint.config.get("model_type")
    if kind not in WHOLES:
        return checkpoint
    others = {name for name in checkpoint.tensors if _part(name) in OTHERS}
    tensors = _named({name: tensor for name, tensor in checkpoint.tensors.items() if name not in others})
    config = _text_config(checkpoint.config, str(kind))
    if HEADS[0] not in tensors and checkpoint.config.get(TIED) is True:
        config[TIED] = True
    parts = sorted({_part(name) for name in others})
    source = {**checkpoint.source, "text_of": kind, "left_out": parts}
    return replace(checkpoint, config=config, tensors=tensors, source=source)


def _part(name: str) -> str:
    """The part of the whole that a tensor belongs to."""
    return name.removeprefix("model.").partition(".")[0]


def _named(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Under the names that the text model has by itself, whoever saved the whole."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in tensors)), "model.")
    return {_name(name, prefix): tensor for name, tensor in tensors.items()}


def _name(name: str, prefix: str) -> str:
    if name in HEADS:
        return HEADS[0]
    return f"model.{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def _text_config(whole: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """config.json as the text model has it, with what it takes from the whole's."""
    given = whole.get("text_config")
    if given is None and kind in FLAT:
        given = {name: value for name, value in whole.items() if not name.endswith("_config")}
    if not isinstance(given, Mapping):
        raise CheckpointError(
            f"config.json: text_config is {short(given)}, expected the object that describes the text model of "
            f"{kind!r}; download the file again"
        )
    usual = WHOLES[kind]
    own = usual if usual.endswith("_text") else given.get("model_type") or usual
    beside = {name: whole[name] for name in (TIED, *TOKENS) if name in whole}
    found = {**beside, **given, "model_type": own}
    found.pop("architectures", None)  # the whole's
    return found
