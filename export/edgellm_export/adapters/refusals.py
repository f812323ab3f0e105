"""What edgellm does not merge, refused by name: other kinds of adapter, and keys that make something else of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.errors import UnsupportedModelError
from edgellm_export.checkpoint.config import short

READ = {
    "alpha_pattern", "ensure_weight_tying", "exclude_modules", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_bias", "modules_to_save", "peft_type", "r", "rank_pattern",
    "target_modules", "task_type", "trainable_token_indices", "use_dora", "use_rslora",
}  # fmt: skip
# Keys of training and of loading, and those that follow from the tensors.
NO_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config",
    "fan_in_fan_out", "inference_mode", "lora_dropout", "lora_ga_config", "loftq_config", "megatron_core",
    "merge_weights", "modules_to_tie", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules_to_tie", "velora_config",
}  # fmt: skip
# Keys that make something else of an adapter, where they are switched on.
REFUSED = {
    "alora_invocation_tokens": "an adapter that works from some tokens on cannot be merged",
    "arrow_config": "a router between adapters cannot be merged",
    "kasa_config": "PEFT changes the base's weights when it loads such an adapter",
    "layer_replication": "a model with repeated layers is another than its base",
    "megatron_config": "its layers are Megatron's",
    "monteclora_config": "its weights are drawn at random",
    "target_parameters": "only a mixture of experts has parameters that are not a module's weight",
    "use_bdlora": "its matrices are block-diagonal",
    "use_qalora": "it belongs to a base in GPTQ",
}
STARTS = {"true", "false", "gaussian", "eva", "orthogonal", "mica"}  # of init_lora_weights, that leave the base alone
PROMPTS = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "XLORA"}
MERGE = "PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(MERGED), and export MERGED"


def check_type(data: Mapping[str, Any], place: str) -> None:
    """Raises UnsupportedModelError for another kind of adapter than LoRA. `place`: of adapter_config.json."""
    kind = data.get("peft_type")
    if kind == "LORA":
        return
    if not isinstance(kind, str):
        raise UnsupportedModelError(f"{place} has no peft_type; expected a file that PEFT wrote for a LoRA adapter")
    if kind in PROMPTS:
        raise UnsupportedModelError(
            f"{place}: peft_type is {kind}, which no weights can be merged with; edgellm takes LORA"
        )
    raise UnsupportedModelError(
        f"{place}: peft_type is {kind}, and edgellm takes LORA; merge it with PEFT first: {MERGE}"
    )


def check_features(data: Mapping[str, Any], place: str) -> None:
    """Raises UnsupportedModelError for a key that is switched on and not merged as it should be."""
    start = data.get("init_lora_weights")
    if start is not None and str(start).lower() not in STARTS:
        raise UnsupportedModelError(
            f"{place}: init_lora_weights is {short(start)}, for which PEFT changes the base's weights when it loads "
            "the adapter; save it with PEFT's path_initial_model_for_weight_conversion, or merge it with PEFT first: "
            f"{MERGE}"
        )
    for key, value in data.items():
        if value and key not in NO_EFFECT and key not in READ:
            reason = REFUSED.get(key, "edgellm does not know this key")
            raise UnsupportedModelError(
                f"{place}: {key} is {short(value)}, and {reason}; if PEFT merges it, merge it with PEFT first: {MERGE}"
            )
