"""GGUF tensor names to Hugging Face names, per model type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TENSOR = re.compile(r"(?:(?P<stack>.*)blk\.(?P<layer>\d+)\.)?(?P<part>[\w.]+)\.(?P<kind>weight|bias)")

STATE = re.compile(r"blk\.(?P<layer>\d+)\.(?P<part>ssm_a|ssm_d|ssm_dt\.bias)")  # numbers of a state space's heads

EXPERT = "*"  # in a name: a tensor for each of the matrices in the file's
BARE = (".correct_output_scale",)  # what is no layer's, and has no ".weight" behind its name
Names = Mapping[str, str]


def _layers(layer: str, parts: Names, stack: str = "") -> dict[str, str]:
    """Parts of a layer by their GGUF names. `layer` has the number as {}."""
    return {f"{stack}blk.{{}}.{part}": f"{layer}.{name}" for part, name in parts.items()}


def _llama(**parts: str) -> dict[str, str]:
    """What the relatives of Llama have in common, and `parts` of a layer in which one differs."""
    common = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    outer = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    return outer | _layers("model.layers.{}", common | parts)


def _bert(prefix: str, layer: str, parts: Names, head: Names) -> dict[str, str]:
    outer = {
        "token_embd": f"{prefix}embeddings.word_embeddings",
        "position_embd": f"{prefix}embeddings.position_embeddings",
        "token_types": f"{prefix}embeddings.token_type_embeddings",
        "token_embd_norm": f"{prefix}embeddings.LayerNorm",
    }
    return outer | dict(head) | _layers(f"{prefix}{layer}", parts)


def _mixture(block: str = "mlp", router: str = "gate", **parts: str) -> dict[str, str]:
    """A relative with experts. `parts`: what an expert's are called, where it is not as in Llama's MLP."""
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj", **parts}
    stacks = {f"ffn_{part}_exps": f"{block}.experts.{EXPERT}.{name}" for part, name in names.items()}
    shared = {f"ffn_{part}_shexp": f"{block}.shared_expert.{name}" for part, name in names.items()}
    one = {"ffn_gate_inp": f"{block}.{router}", "ffn_gate_inp_shexp": f"{block}.shared_expert_gate"}
    return _llama(**stacks, **shared, **one)


LLAMA = _llama()
GEMMA = _llama(
    post_attention_norm="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    post_ffw_norm="post_feedforward_layernorm",
)
GEMMA3N = (
    GEMMA
    | {
        "per_layer_token_embd": "model.embed_tokens_per_layer",
        "per_layer_model_proj": "model.per_layer_model_projection",
        "per_layer_proj_norm": "model.per_layer_projection_norm",
        "altup_proj": f"model.altup_projections.{EXPERT}",
        "altup_unembd_proj": f"model.altup_unembed_projections.{EXPERT}",
    }
    | _layers(
        "model.layers.{}",
        {
            "inp_gate": "per_layer_input_gate",
            "proj": "per_layer_projection",
            "post_norm": "post_per_layer_input_norm",
            "altup_correct_coef": "altup.correction_coefs",
            "altup_correct_scale": "altup.correct_output_scale",
            "altup_predict_coef": "altup.prediction_coefs",
            "altup_router": "altup.modality_router",
            "altup_router_norm": "altup.router_norm",
            "laurel_l": "laurel.linear_left",
            "laurel_r": "laurel.linear_right",
            "laurel_post_norm": "laurel.post_laurel_norm",
        },
    )
)
MAMBA = {
    "ssm_in": "in_proj",
    "ssm_conv1d": "conv1d",
    "ssm_norm": "norm",
    "ssm_out": "out_proj",
    "ssm_a": "A_log",
    "ssm_d": "D",
    "ssm_dt.bias": "dt_bias",
}
GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    **_layers(
        "transformer.h.{}",
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
    ),
}
PHI = {
    **_llama(attn_output="self_attn.dense", ffn_up="mlp.fc1", ffn_down="mlp.fc2"),
    "output_norm": "model.final_layernorm",
}
OLMO2 = _llama(post_attention_norm="post_attention_layernorm", post_ffw_norm="post_feedforward_layernorm")
DEEPSEEK = _mixture() | _layers(
    "model.layers.{}",
    {
        "attn_q_a": "self_attn.q_a_proj",
        "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_q_b": "self_attn.q_b_proj",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "attn_kv_b": "self_attn.kv_b_proj",
        "attn_k_b": "self_attn.k_b_proj",
        "attn_v_b": "self_attn.v_b_proj",
        "exp_probs_b": "mlp.gate.e_score_correction",
        **{f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")},
    },
)
BLOOM = {
    "token_embd": "transformer.word_embeddings",
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    **_layers(
        "transformer.h.{}",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
}
GPT_NEOX = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "embed_out",
    **_layers(
        "gpt_neox.layers.{}",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
}
BERT_LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
DISTILBERT_LAYER = {
    "attn_q": "attention.q_lin",
    "attn_k": "attention.k_lin",
    "attn_v": "attention.v_lin",
    "attn_output": "attention.out_lin",
    "attn_output_norm": "sa_layer_norm",
    "ffn_up": "ffn.lin1",
    "ffn_down": "ffn.lin2",
    "layer_output_norm": "output_layer_norm",
}
BERT = _bert("bert.", "encoder.layer.{}", BERT_LAYER, {})
ROBERTA = _bert(
    "roberta.", "encoder.layer.{}", BERT_LAYER, {"cls": "classifier.dense", "cls.output": "classifier.out_proj"}
)
DISTILBERT = _bert(
    "distilbert.", "transformer.layer.{}", DISTILBERT_LAYER, {"cls": "pre_classifier", "cls.output": "classifier"}
)


def _t5(gated: bool) -> dict[str, str]:
    sides = {"q": "q", "k": "k", "v": "v", "o": "o", "rel_b": "relative_attention_bias"}
    own = {f"attn_{side}": f"layer.0.SelfAttention.{name}" for side, name in sides.items()}
    own["attn_norm"] = "layer.0.layer_norm"
    cross = {f"cross_attn_{side}": f"layer.1.EncDecAttention.{name}" for side, name in sides.items()}
    cross["cross_attn_norm"] = "layer.1.layer_norm"

    def feed_forward(index: int) -> dict[str, str]:
        dense = f"layer.{index}.DenseReluDense"
        names = {
            "ffn_up": f"{dense}.{'wi_1' if gated else 'wi'}",
            "ffn_gate": f"{dense}.wi_0",
            "ffn_down": f"{dense}.wo",
        }
        return names | {"ffn_norm": f"layer.{index}.layer_norm"}

    return {
        "token_embd": "shared",
        "output": "lm_head",
        "enc.output_norm": "encoder.final_layer_norm",
        "dec.output_norm": "decoder.final_layer_norm",
        **_layers("encoder.block.{}", own | feed_forward(1), "enc."),
        **_layers("decoder.block.{}", own | cross | feed_forward(2), "dec."),
    }


FALCON = {
    **{part: name for part, name in BLOOM.items() if part in ("token_embd", "output_norm", "output")},
    **_layers(
        "transformer.h.{}",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
}
FALCON_NORMS = _layers("transformer.h.{}", {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"})
MPT = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.norm_f",
    "output": "lm_head",
    **_layers(
        "transformer.blocks.{}",
        {
            "attn_norm": "norm_1",
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.out_proj",
            "ffn_norm": "norm_2",
            "ffn_up": "ffn.up_proj",
            "ffn_down": "ffn.down_proj",
        },
    ),
}
NOMIC = {
    "token_embd": "nomic_bert.embeddings.word_embeddings",
    "token_types": "nomic_bert.embeddings.token_type_embeddings",
    "token_embd_norm": "nomic_bert.emb_ln",
    **_layers(
        "nomic_bert.encoder.layers.{}",
        {
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.out_proj",
            "attn_output_norm": "norm1",
            "ffn_up": "mlp.fc11",
            "ffn_gate": "mlp.fc12",
            "ffn_down": "mlp.fc2",
            "layer_output_norm": "norm2",
        },
    ),
}
MODERNBERT = {
    "token_embd": "model.embeddings.tok_embeddings",
    "token_embd_norm": "model.embeddings.norm",
    "output_norm": "model.final_norm",
    **_layers(
        "model.layers.{}",
        {
            "attn_norm": "attn_norm",
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.Wo",
            "ffn_norm": "mlp_norm",
            "ffn_up": "mlp.Wi",
            "ffn_down": "mlp.Wo",
        },
    ),
}
NAMES: Mapping[str, Names] = {
    **dict.fromkeys(("gemma", "granite", "llama", "mistral", "olmo", "qwen2", "qwen3", "smollm3", "stablelm"), LLAMA),
    **dict.fromkeys(("olmo2", "olmo3"), OLMO2),
    "phi": PHI,
    "bloom": BLOOM,
    "gpt_bigcode": GPT2,
    **dict.fromkeys(("arcee", "cohere", "cohere2", "ernie4_5", "nemotron"), LLAMA),
    "apertus": _llama(attn_norm="attention_layernorm", ffn_norm="feedforward_layernorm"),
    "bitnet": _llama(attn_sub_norm="self_attn.attn_sub_norm", ffn_sub_norm="mlp.ffn_sub_norm"),
    "falcon": FALCON,
    "glm": _llama(ffn_up="mlp.gate_up_proj"),
    "modernbert": MODERNBERT,
    "mpt": MPT,
    "nomic_bert": NOMIC,
    "exaone4": _llama(post_attention_norm="post_attention_layernorm", post_ffw_norm="post_feedforward_layernorm"),
    "glm4": _llama(
        post_attention_norm="post_self_attn_layernorm", post_ffw_norm="post_mlp_layernorm", ffn_up="mlp.gate_up_proj"
    ),
    "hunyuan_v1_dense": _llama(attn_q_norm="self_attn.query_layernorm", attn_k_norm="self_attn.key_layernorm"),
    "seed_oss": _llama(post_attention_norm="post_attention_layernorm"),
    "lfm2": {
        **_llama(
            attn_norm="operator_norm",
            attn_q_norm="self_attn.q_layernorm",
            attn_k_norm="self_attn.k_layernorm",
            attn_output="self_attn.out_proj",
            ffn_norm="ffn_norm",
            ffn_gate="feed_forward.w1",
            ffn_up="feed_forward.w3",
            ffn_down="feed_forward.w2",
            **{f"shortconv.{part}": f"conv.{part}" for part in ("in_proj", "conv", "out_proj")},
        ),
        **dict.fromkeys(("output_norm", "token_embd_norm"), "model.embedding_norm"),
    },
    "phi3": _llama(attn_qkv="self_attn.qkv_proj", ffn_up="mlp.gate_up_proj"),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA),
    "gemma3n_text": GEMMA3N,
    "starcoder2": _llama(ffn_up="mlp.c_fc", ffn_down="mlp.c_proj"),
    **dict.fromkeys(("olmoe", "qwen2_moe", "qwen3_moe"), _mixture()),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), DEEPSEEK),
    **dict.fromkeys(("mixtral", "phimoe"), _mixture("block_sparse_moe", gate="w1", up="w3", down="w2")),
    "gpt_oss": _mixture(router="router")
    | _layers("model.layers.{}", {"post_attention_norm": "post_attention_layernorm", "attn_sinks": "self_attn.sinks"}),
    "granitemoe": _mixture("block_sparse_moe", "router.layer"),
    "granitemoehybrid": _mixture("block_sparse_moe", "router.layer")
    | _layers(
        "model.layers.{}",
        {part: f"mamba.{name}" for part, name in MAMBA.items()}
        | {
            f"ffn_{part}{end}": f"shared_mlp.{name}"
            for end in ("", "_shexp")
            for part, name in {"gate": "gate_proj", "up": "up_proj", "down": "output_linear"}.items()
        },
    ),
    "mamba2": {
        "token_embd": "backbone.embeddings",
        "output_norm": "backbone.norm_f",
        "output": "lm_head",
        **_layers(
            "backbone.layers.{}", {"attn_norm": "norm", **{part: f"mixer.{name}" for part, name in MAMBA.items()}}
        ),
    },
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "bert": BERT,
    **dict.fromkeys(("roberta", "xlm-roberta"), ROBERTA),
    "distilbert": DISTILBERT,
}


def names_of(config: Mapping[str, Any]) -> Names:
    """The names of the model that config.json describes."""
    family = config["model_type"]
    if family in ("t5", "umt5"):
        return _t5(config["feed_forward_proj"] != "relu")
    return {**NAMES[family], **FALCON_NORMS} if config.get("num_ln_in_parallel_attn") == 2 else NAMES[family]


def huggingface_name(name: str, names: Names) -> str:
    state = STATE.fullmatch(name)
    if state is not None:
        return names.get(f"blk.{{}}.{state['part']}", name).format(state["layer"])
    match = TENSOR.fullmatch(name)
    if match is None:
        return name
    place = "" if match["layer"] is None else f"{match['stack']}blk.{{}}."
    found = names.get(f"{place}{match['part']}")
    if found is None:
        return name
    full = found.format(match["layer"])
    return full if full.endswith(BARE) else f"{full}.{match['kind']}"
