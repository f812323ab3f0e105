"""How a model is to generate: generation_config.json or, where there is none, config.json, with names and meanings of
Hugging Face's GenerationConfig. Those of its keys that are neither options nor refused change no token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgellm.package.json_data import read_json

GENERATION = "generation_config.json"
Settings = Mapping[str, Any]

# What config.json may hold of it, as older checkpoints do: all keys that transformers reads there.
KEYS = {
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind",
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "cache_config", "cache_implementation",
    "compile_config", "constraints", "continuous_batching_config", "decoder_start_token_id", "disable_compile",
    "diversity_penalty", "do_sample", "dola_layers", "early_stopping", "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty", "eos_token_id", "epsilon_cutoff", "eta_cutoff",
    "exponential_decay_length_penalty", "force_words_ids", "forced_bos_token_id", "forced_eos_token_id",
    "guidance_scale", "is_assistant", "length_penalty", "low_memory", "max_cache_len", "max_length",
    "max_matching_ngram_size", "max_new_tokens", "max_time", "min_length", "min_new_tokens", "min_p",
    "no_repeat_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores", "pad_token_id", "penalty_alpha", "prefill_chunk_size", "prompt_lookup_num_tokens",
    "remove_invalid_values", "renormalize_logits", "repetition_penalty", "return_dict_in_generate",
    "return_legacy_cache", "sequence_bias", "speculation_type", "stop_strings", "suppress_tokens",
    "target_lookbehind", "temperature", "token_healing", "top_h", "top_k", "top_p", "typical_p", "use_cache",
    "use_mtp", "watermarking_config",
}  # fmt: skip

# Options that a package's file may set and that are nothing to transformers: a checkpoint's file does not mean them.
OWN = {
    "choices", "frequency_penalty", "grammar", "json_schema", "logit_bias", "logprobs", "overflow", "overflow_keep",
    "presence_penalty", "prompt_lookup", "regex", "seed", "top_logprobs",
}  # fmt: skip


def settings_of(file: Mapping[str, Any] | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """What counts: the content of generation_config.json, whatever config.json holds; None: there is no such file."""
    if file is not None:
        return dict(file)
    found = {name: value for name, value in config.items() if name in KEYS and value is not None}
    if config.get("force_bos_token_to_be_generated") is True and "bos_token_id" in found:  # BART's older spelling
        found["forced_bos_token_id"] = found["bos_token_id"]
    return found


def read_settings(directory: Path) -> dict[str, Any]:
    """What counts of a directory's two files. Raises PackageCorruptError."""
    file = directory / GENERATION
    return settings_of(read_json(file) if file.is_file() else None, read_json(directory / "config.json"))


def _given(name: str) -> Callable[[Settings], bool]:
    return lambda settings: settings.get(name) not in (None, False, [], {}, "")


def _has_several(value: Any) -> bool:
    """Whether the rows of a batch begin with a token each."""
    return isinstance(value, list) and len(value) != 1


def _searches_by_contrast(settings: Settings) -> bool:
    top_k = settings.get("top_k", 50)
    greedy = not settings.get("do_sample") and (settings.get("num_beams") or 1) == 1
    return greedy and _given("penalty_alpha")(settings) and settings["penalty_alpha"] != 0 and top_k != 1


# Keys that change tokens in a way that edgellm does not have, and when they do.
REFUSED: Mapping[str, Callable[[Settings], bool]] = {
    "cache_implementation": lambda settings: settings.get("cache_implementation") == "quantized",
    "constraints": _given("constraints"),
    "decoder_start_token_id": lambda settings: _has_several(settings.get("decoder_start_token_id")),
    "dola_layers": lambda settings: _given("dola_layers")(settings) and (settings.get("num_beams") or 1) == 1,
    "force_words_ids": _given("force_words_ids"),
    "guidance_scale": lambda settings: settings.get("guidance_scale") not in (None, 1),
    "penalty_alpha": _searches_by_contrast,
    "sequence_bias": _given("sequence_bias"),
    "token_healing": _given("token_healing"),
    "top_h": lambda settings: _given("top_h")(settings) and bool(settings.get("do_sample")),
    "watermarking_config": _given("watermarking_config"),
}


def refused(settings: Settings) -> list[str]:
    """A sentence for each key that asks for something edgellm does not do."""
    return [
        f"{name} is {settings[name]!r}, which edgellm does not do" for name, asks in REFUSED.items() if asks(settings)
    ]
