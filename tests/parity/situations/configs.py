"""config.json and generation_config.json as different hands write them: keys old, new, both, missing, null."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from making import Edit, edited, removed, renamed, without
from situations.decoders import LLAMA3, YARN, gemma2, gemma3, gpt2, llama, mistral, neox, phi3, qwen2, qwen3, starcoder2
from situations.encoder_decoders import SUMMARIES, bart, marian, mbart, mt5, pegasus, t5
from situations.encoders import LABELS, bert, distilbert, electra, ernie, roberta

CONFIG, GENERATION = "config.json", "generation_config.json"
ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
NEOX_ROPE = (*ROPE, "rotary_pct", "rotary_emb_base")
LONG = {"short_factor": [1.0 + 0.05 * i for i in range(8)], "long_factor": [1.5 + 0.4 * i for i in range(8)]}
ONLY_IN_5 = {
    "model": "4.57 reads no rope_parameters",
    "logits": "4.57 reads no rope_parameters",
    "generated": "4.57 reads no rope_parameters",
}


def rope(*taken: str, **keys: Any) -> tuple[Edit, ...]:
    """Rotary positions said by these keys alone."""
    return without(CONFIG, *(taken or ROPE)), edited(CONFIG, **keys)


def shuffled_head(path: Path) -> None:
    """A head of its own beside a config that says it is tied."""
    _with_head(path, lambda table: table.roll(1, 0).contiguous())


def same_head(path: Path) -> None:
    _with_head(path, lambda table: table.clone())


def _with_head(path: Path, head: Callable[[Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    name = next(name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight", "shared.weight")))
    save_file({**tensors, "lm_head.weight": head(tensors[name])}, path / "model.safetensors", {"format": "pt"})


def renamed_tensor(old: str, to: str) -> Edit:
    def edit(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path / "model.safetensors")
        save_file({to if n == old else n: t for n, t in tensors.items()}, path / "model.safetensors", {"format": "pt"})

    return edit


CLASS_DEFAULTS = dict.fromkeys(
    ("defaults", "special tokens", "generated"), "4.57 fills in the defaults of the config's class"
)
CANNOT = dict.fromkeys(("model", "logits", "generated"), "4.57 cannot read it")
TIED_IN_5 = {
    "logits": "4.57 takes the embedding for the head of a tied model", "generated": "as its logits",
}  # fmt: skip

SITUATIONS = [
    # rotary positions
    llama("rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5),
    mistral("rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5),
    qwen2("rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5),
    qwen3("rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5),
    phi3("rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5),
    gemma2("rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5),
    starcoder2(
        "rope-parameters", *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0}), differs=ONLY_IN_5
    ),
    neox(
        "rope-parameters",
        *rope(*NEOX_ROPE, rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5}),
        differs=ONLY_IN_5,
    ),
    llama("rope-parameters-without-type", *rope(rope_parameters={"rope_theta": 300.0}), differs=ONLY_IN_5),
    llama(
        "rope-parameters-without-theta",
        *rope(rope_theta=300.0, rope_parameters={"rope_type": "linear", "factor": 3.0}),
        differs=ONLY_IN_5,
    ),
    llama(
        "rope-parameters-linear",
        *rope(rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}),
        differs=ONLY_IN_5,
    ),
    llama("rope-parameters-llama3", *rope(rope_parameters={**LLAMA3, "rope_theta": 5e5}), differs=ONLY_IN_5),
    llama(
        "rope-parameters-yarn", *rope(rope_parameters={**YARN, "rope_theta": 5e4, "truncate": False}), differs=ONLY_IN_5
    ),
    llama(
        "rope-parameters-dynamic",
        *rope(rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
        max_position_embeddings=48,
        differs=ONLY_IN_5,
    ),
    llama(
        "rope-parameters-proportional",
        *rope(rope_parameters={"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0}),
        differs=ONLY_IN_5,
    ),
    llama(
        "rope-theta-in-scaling",
        *rope(rope_theta=9000.0, rope_scaling={"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}),
        differs=ONLY_IN_5,
    ),
    llama(
        "rope-scaling-beside-parameters",
        *rope(
            rope_theta=9000.0,
            rope_scaling={"rope_type": "linear", "factor": 2.0},
            rope_parameters={"rope_type": "default", "rope_theta": 77.0},
        ),
        differs=ONLY_IN_5,
    ),
    llama(
        "rope-both-types",
        *rope(rope_scaling={"rope_type": "linear", "type": "dynamic", "factor": 2.0}),
        max_position_embeddings=48,
        differs=ONLY_IN_5,
    ),
    llama("yarn-without-original", *rope(rope_scaling={"rope_type": "yarn", "factor": 4.0}), differs=ONLY_IN_5),
    llama(
        "yarn-original-beside",
        *rope(original_max_position_embeddings=40, rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        differs=ONLY_IN_5,
    ),
    llama("yarn-untruncated", *rope(rope_scaling={**YARN, "truncate": False})),
    llama("scaling-empty", *rope(rope_theta=500.0, rope_scaling={}), differs=CANNOT),
    llama("scaling-default", *rope(rope_theta=500.0, rope_scaling={"rope_type": "default"})),
    llama("partial", edited(CONFIG, partial_rotary_factor=0.5), refused="rotates whole heads"),
    llama("nested-rope", *rope(rope_parameters={"full_attention": {"rope_theta": 3.0}}), refused="have one rope"),
    llama("su", *rope(rope_scaling={"type": "su", **LONG}), refused="'su'"),
    llama("bidirectional", edited(CONFIG, is_causal=False), refused="is_causal"),
    llama("bidirectional-null", edited(CONFIG, is_causal=None), refused="is_causal"),
    bart("bidirectional", edited(CONFIG, is_causal=False), refused="is_causal"),
    t5("bidirectional", edited(CONFIG, is_causal=False), refused="is_causal"),
    bert("states", "causal", edited(CONFIG, is_causal=True), refused="is_causal"),
    bert("states", "causal-null", edited(CONFIG, is_causal=None)),
    llama("windowed", edited(CONFIG, sliding_window=4), refused="sliding_window"),
    llama("windowless", edited(CONFIG, sliding_window=None, layer_types=["full_attention"] * 3)),
    gpt2("chunked", edited(CONFIG, attention_chunk_size=4), refused="attention_chunk_size"),
    bart("windowed", edited(CONFIG, sliding_window=4), refused="sliding_window"),
    phi3("windowed-in-part", edited(CONFIG, layer_types=["sliding_attention"] * 3), refused="layer_types"),
    llama("layers-apart", edited(CONFIG, per_layer_config={"0": {"hidden_act": "relu"}}), refused="per_layer_config"),
    phi3(
        "longrope-parameters",
        *rope(
            original_max_position_embeddings=32, rope_parameters={"rope_type": "longrope", "rope_theta": 500.0, **LONG}
        ),
        differs=ONLY_IN_5,
    ),
    phi3(
        "longrope-factor",
        *rope(original_max_position_embeddings=32, rope_parameters={"rope_type": "longrope", "factor": 8.0, **LONG}),
        differs=ONLY_IN_5,
    ),
    phi3(
        "longrope-original-inside",
        *rope(
            "original_max_position_embeddings",
            *ROPE,
            rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 16, **LONG},
        ),
        differs=ONLY_IN_5,
    ),
    phi3(
        "partial-parameters",
        *rope(rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5}),
        hidden_size=192,
        head_dim=...,
        differs=ONLY_IN_5,
    ),
    gemma3(
        "nested",
        *rope(
            *ROPE,
            "rope_local_base_freq",
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
        ),
        differs=ONLY_IN_5,
    ),
    gemma3(
        "nested-half",
        *rope(
            *ROPE,
            "rope_local_base_freq",
            rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 900.0}},
        ),
        differs=ONLY_IN_5,
    ),
    gemma3(
        "nested-beside-old",
        *rope(
            *ROPE,
            "rope_local_base_freq",
            rope_theta=70.0,
            rope_local_base_freq=30.0,
            rope_parameters={
                "full_attention": {"rope_type": "default"},
                "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
            },
        ),
        differs=ONLY_IN_5,
    ),
    gemma3("rope-silent", *rope(*ROPE, "rope_local_base_freq")),
    gemma3(
        "flat", *rope(*ROPE, rope_parameters={"rope_type": "default", "rope_theta": 900.0}), refused="has a rope for"
    ),
    gemma3(
        "older-type",
        *rope("rope_parameters", rope_scaling={"type": "linear", "factor": 8.0}),
        refused="call it rope_type",
    ),
    neox("rope-silent", *rope(*NEOX_ROPE)),
    neox("older-keys", *rope(*NEOX_ROPE, rotary_pct=0.5, rotary_emb_base=500)),
    neox("theta-beside", *rope(*NEOX_ROPE, rotary_pct=0.5, rotary_emb_base=500, rope_theta=7.0), differs=ONLY_IN_5),
    # keys that are missing are defaults of the class
    llama(
        "silent",
        without(
            CONFIG,
            "hidden_act",
            "rms_norm_eps",
            "attention_bias",
            "mlp_bias",
            "pretraining_tp",
            "tie_word_embeddings",
            *ROPE,
        ),
    ),
    llama("pretraining-tp", edited(CONFIG, pretraining_tp=2)),
    mistral("silent", without(CONFIG, "hidden_act", "rms_norm_eps", "sliding_window", "tie_word_embeddings", *ROPE)),
    mistral("no-kv-heads", without(CONFIG, "num_key_value_heads"), num_attention_heads=8, num_key_value_heads=8),
    qwen2(
        "silent",
        without(
            CONFIG,
            "hidden_act",
            "rms_norm_eps",
            "use_sliding_window",
            "sliding_window",
            "max_window_layers",
            "layer_types",
            "tie_word_embeddings",
            *ROPE,
        ),
    ),
    qwen3("no-head-dim", without(CONFIG, "head_dim", "layer_types"), head_dim=128),
    phi3(
        "silent",
        without(
            CONFIG,
            "hidden_act",
            "rms_norm_eps",
            "sliding_window",
            "tie_word_embeddings",
            "original_max_position_embeddings",
            *ROPE,
        ),
    ),
    gemma2(
        "silent",
        without(
            CONFIG,
            "hidden_activation",
            "rms_norm_eps",
            "layer_types",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "tie_word_embeddings",
            "query_pre_attn_scalar",
            *ROPE,
        ),
        query_pre_attn_scalar=256,
    ),
    gemma3(
        "silent",
        without(
            CONFIG,
            "hidden_activation",
            "rms_norm_eps",
            "layer_types",
            "_sliding_window_pattern",
            "tie_word_embeddings",
            "query_pre_attn_scalar",
            *ROPE,
        ),
        query_pre_attn_scalar=256,
    ),
    starcoder2(
        "silent",
        without(CONFIG, "hidden_act", "norm_epsilon", "use_bias", "sliding_window", "tie_word_embeddings", *ROPE),
    ),
    neox(
        "silent",
        without(
            CONFIG,
            "hidden_act",
            "layer_norm_eps",
            "use_parallel_residual",
            "attention_bias",
            "tie_word_embeddings",
            *NEOX_ROPE,
        ),
    ),
    gpt2(
        "silent",
        without(
            CONFIG, "activation_function", "layer_norm_epsilon", "scale_attn_weights", "tie_word_embeddings", "n_inner"
        ),
    ),
    gpt2(
        "other-names",
        renamed(
            CONFIG,
            n_embd="hidden_size",
            n_layer="num_hidden_layers",
            n_head="num_attention_heads",
            n_positions="max_position_embeddings",
        ),
    ),
    gpt2("upcast", reorder_and_upcast_attn=True),
    gpt2("unscaled-by-layer", scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
    gpt2("gelu-python", edited(CONFIG, activation_function="gelu_python")),
    gpt2("gelu-accurate", edited(CONFIG, activation_function="gelu_accurate")),
    t5(
        "silent",
        without(
            CONFIG,
            "feed_forward_proj",
            "dense_act_fn",
            "is_gated_act",
            "layer_norm_epsilon",
            "num_decoder_layers",
            "relative_attention_max_distance",
            "relative_attention_num_buckets",
        ),
    ),
    t5(
        "other-names",
        renamed(
            CONFIG,
            d_model="hidden_size",
            num_layers="num_hidden_layers",
            num_heads="num_attention_heads",
            d_kv="head_dim",
        ),
    ),
    t5("dense-act", edited(CONFIG, dense_act_fn="gelu")),
    mt5(
        "silent",
        without(
            CONFIG, "feed_forward_proj", "dense_act_fn", "is_gated_act", "layer_norm_epsilon", "tie_word_embeddings"
        ),
    ),
    bart(
        "silent", without(CONFIG, "activation_function", "scale_embedding", "tie_word_embeddings", "num_hidden_layers")
    ),
    bart(
        "older-keys",
        edited(
            CONFIG,
            normalize_before=True,
            add_final_layer_norm=True,
            add_bias_logits=True,
            static_position_embeddings=True,
            normalize_embedding=False,
            extra_pos_embeddings=2,
        ),
    ),
    bart("other-name", renamed(CONFIG, d_model="hidden_size")),
    marian(
        "silent",
        without(
            CONFIG, "activation_function", "share_encoder_decoder_embeddings", "decoder_vocab_size", "num_hidden_layers"
        ),
    ),
    bert(
        "mlm",
        "silent",
        without(
            CONFIG,
            "hidden_act",
            "layer_norm_eps",
            "type_vocab_size",
            "pad_token_id",
            "position_embedding_type",
            "tie_word_embeddings",
        ),
    ),
    roberta(
        "mlm",
        "silent",
        without(CONFIG, "hidden_act", "layer_norm_eps", "pad_token_id", "position_embedding_type"),
        type_vocab_size=2,
    ),
    electra("mlm", "silent", without(CONFIG, "embedding_size", "hidden_act"), embedding_size=128),
    ernie("states", "tasks", use_task_id=True),
    ernie("states", "tasks-silent", without(CONFIG, "task_type_vocab_size"), use_task_id=True),
    distilbert("mlm", "silent", without(CONFIG, "activation", "sinusoidal_pos_embds")),
    distilbert(
        "mlm",
        "other-names",
        renamed(CONFIG, dim="hidden_size", n_layers="num_hidden_layers", n_heads="num_attention_heads"),
    ),
    distilbert("mlm", "eps-of-nobody", edited(CONFIG, layer_norm_eps=0.1)),
    # windows
    mistral(
        "layer-types",
        edited(CONFIG, layer_types=["full_attention", "sliding_attention", "full_attention"]),
        sliding_window=13,
        differs={"logits": "4.57 gives every layer the window", "generated": "as its logits"},
    ),
    qwen2(
        "layer-types",
        edited(
            CONFIG,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            use_sliding_window=True,
            sliding_window=9,
        ),
    ),
    qwen2(
        "layer-types-without-window",
        edited(CONFIG, layer_types=["sliding_attention"] * 3),
        refused="there is no sliding_window",
    ),
    gemma3(
        "old-pattern",
        without(CONFIG, "layer_types", "_sliding_window_pattern"),
        edited(CONFIG, sliding_window_pattern=2),
    ),
    gemma3("both-ways", edited(CONFIG, use_bidirectional_attention=True), refused="use_bidirectional_attention"),
    # which weights are tied
    llama("tied-with-a-head", shuffled_head, tie_word_embeddings=True, differs=TIED_IN_5),
    llama("tied-with-the-same-head", same_head, tie_word_embeddings=True),
    llama(
        "tied-head-only",
        renamed_tensor("model.embed_tokens.weight", "lm_head.weight"),
        tie_word_embeddings=True,
        differs=CANNOT,
    ),
    gpt2("tied-with-a-head", shuffled_head, differs=TIED_IN_5),
    llama(
        "untied-without-head",
        without(CONFIG, "tie_word_embeddings"),
        tie_word_embeddings=True,
        refused="lm_head.weight",
    ),
    t5("tied-with-a-head", shuffled_head, differs=TIED_IN_5),
    t5(
        "scaled-with-a-head",
        shuffled_head,
        edited(CONFIG, scale_decoder_outputs=True, tie_word_embeddings=False),
        differs=TIED_IN_5,
    ),
    t5("unscaled", edited(CONFIG, scale_decoder_outputs=False), differs=TIED_IN_5),
    mt5("with-a-head", shuffled_head, differs=TIED_IN_5),
    bart("untied", tie_word_embeddings=False, versions=("5",)),
    bart("tied-with-a-head", shuffled_head, differs=TIED_IN_5),
    mbart("untied", tie_word_embeddings=False, versions=("5",)),
    pegasus("untied", tie_word_embeddings=False, versions=("5",)),
    bert("mlm", "untied", tie_word_embeddings=False, versions=("5",)),
    roberta("mlm", "untied", tie_word_embeddings=False, type_vocab_size=2, versions=("5",)),
    electra("mlm", "untied", tie_word_embeddings=False),
    distilbert("mlm", "untied", tie_word_embeddings=False, versions=("5",)),
    # labels
    bert("labels", "label2id-alone", without(CONFIG, "id2label"), edited(CONFIG, label2id={"x": 0, "y": 1})),
    bert("labels", "label2id-turned", edited(CONFIG, label2id={"bad": 2, "good": 0, "ugly": 1}), **LABELS),
    bert(
        "labels",
        "more-labels-than-named",
        edited(CONFIG, id2label={"0": "a", "1": "b"}, num_labels=3),
        **LABELS,
        differs={
            "labels": "4.57 takes id2label, and cannot load it",
            "model": "4.57 takes id2label, and cannot load it",
        },
    ),
    bert("labels", "same-name-twice", edited(CONFIG, id2label={"0": "a", "1": "a", "2": "b"}), **LABELS),
    bert(
        "labels", "partial", edited(CONFIG, id2label={"0": "a", "5": "b"}), **LABELS, refused="not the numbers from 0"
    ),
    # how to generate
    bart(
        "forced-tokens-alone",
        removed(GENERATION),
        edited(CONFIG, forced_bos_token_id=1, forced_eos_token_id=2, num_beams=2),
    ),
    bart("without-forced-eos", removed(GENERATION), without(CONFIG, "forced_eos_token_id"), differs=CLASS_DEFAULTS),
    bart("forced-bos-old-spelling", removed(GENERATION), edited(CONFIG, force_bos_token_to_be_generated=True)),
    bart("generation-silent", without(GENERATION, "eos_token_id", "forced_eos_token_id")),
    bart(
        "generation-empty",
        edited(GENERATION, decoder_start_token_id=2),
        without(GENERATION, "bos_token_id", "eos_token_id", "pad_token_id"),
    ),
    t5(
        "generation-in-config",
        removed(GENERATION),
        edited(CONFIG, **{k: v for k, v in SUMMARIES.items() if k != "forced_bos_token_id"}),
    ),
    pegasus("generation-in-config", removed(GENERATION), edited(CONFIG, **SUMMARIES)),
    marian("generation-in-config", removed(GENERATION), edited(CONFIG, num_beams=4, bad_words_ids=[[0]])),
    mbart(
        "generation-in-config",
        removed(GENERATION),
        edited(CONFIG, num_beams=3, early_stopping=True, forced_bos_token_id=5),
    ),
    llama("eos-in-config-alone", removed(GENERATION), edited(CONFIG, eos_token_id=[0, 3])),
    llama(
        "eos-nowhere",
        removed(GENERATION),
        without(CONFIG, "eos_token_id", "bos_token_id", "pad_token_id"),
        differs=CLASS_DEFAULTS,
    ),
    llama("eos-only-in-config", without(GENERATION, "eos_token_id")),
    llama("eos-null", edited(GENERATION, eos_token_id=None)),
    llama("eos-list-with-odd", edited(GENERATION, eos_token_id=[-1, 0, 99999])),
    llama("pad-minus-one", edited(GENERATION, pad_token_id=-1), edited(CONFIG, pad_token_id=-1)),
    llama("suppress-beyond", edited(GENERATION, suppress_tokens=[5, 99999], begin_suppress_tokens=[7, 99999])),
    llama("minimum", edited(GENERATION, min_new_tokens=4, eos_token_id=[0, 1, 2, 3, 4, 5])),
    llama(
        "null-settings",
        edited(GENERATION, temperature=None, top_k=None, top_p=None, num_beams=None),
        differs={"generated": "4.57 fails where a setting is null"},
    ),
    llama(
        "no-effect",
        edited(
            GENERATION,
            use_cache=False,
            cache_implementation="hybrid",
            low_memory=True,
            num_assistant_tokens=3,
            remove_invalid_values=True,
            disable_compile=True,
            is_assistant=False,
            custom_key=5,
            seed=3,
            logprobs=2,
            overflow="shift",
        ),
    ),
    llama("contrastive", edited(GENERATION, penalty_alpha=0.6, top_k=4), refused="penalty_alpha"),
    llama("guidance", edited(GENERATION, guidance_scale=1.5), refused="guidance_scale"),
    llama("bias", edited(GENERATION, sequence_bias=[[[5], 2.0]]), refused="sequence_bias"),
    llama("watermark", edited(GENERATION, watermarking_config={"bias": 2.5}), refused="watermarking_config"),
    llama("healing", edited(GENERATION, token_healing=True), refused="token_healing"),
    llama("top-h", edited(GENERATION, top_h=0.4, do_sample=True), refused="top_h"),
    llama("dola", edited(GENERATION, dola_layers="high"), refused="dola_layers"),
    llama("words", edited(GENERATION, force_words_ids=[[5]], num_beams=2), refused="force_words_ids"),
    llama("rounded-cache", edited(GENERATION, cache_implementation="quantized"), refused="cache_implementation"),
    t5("start-in-generation", without(CONFIG, "decoder_start_token_id")),
    mbart(
        "start-in-generation", without(CONFIG, "decoder_start_token_id"), edited(GENERATION, decoder_start_token_id=2)
    ),
    bart("starts", edited(GENERATION, decoder_start_token_id=[2, 3]), refused="decoder_start_token_id"),
]
