"""Tiny checkpoints of model types, as the transformers that runs this makes them, for the table of coverage:
`python tiny_checkpoint.py OUT TYPE ...` makes OUT/TYPE, or OUT/TYPE.txt with why it cannot.

Sizes are set by the names that configs use for them, also in the configs of their parts; what a type wants besides is
in `SPECIAL`."""

from __future__ import annotations

import copy
import inspect
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers as hf
from transformers.models.auto import modeling_auto as auto

MEMORY = 8 << 30  # bytes of address space
VOCAB, HIDDEN, CONTEXT = 260, 64, 128
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim", "d_embed",
                     "word_embed_proj_dim", "d_inner_size", "projection_dim", "out_hidden_size"), HIDDEN),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "decoder_ffn_dim", "encoder_ffn_dim",
                     "ffn_hidden_size", "n_inner", "shared_intermediate_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
                     "num_decoder_layers", "num_encoder_layers", "depth"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
                     "decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "n_head_kv", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_size", "kv_lora_rank", "qk_nope_head_dim",
                     "v_head_dim", "qk_rope_head_dim"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_source_positions",
                     "max_target_positions"), CONTEXT),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    "sliding_window": 24, "vocab_size": VOCAB, "n_shared_experts": 1, "q_lora_rank": None,
}  # fmt: skip
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
VISION = {"image_size": 28, "patch_size": 14, "num_channels": 3}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "albert": {"embedding_size": 32, "num_hidden_groups": 1},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8},
    "cohere2": {"sliding_window_pattern": 2},
    "deepseek_v2": {
        "num_key_value_heads": 4, "first_k_dense_replace": 1, "topk_method": "greedy",
        "n_group": None, "topk_group": None,
    },
    "deepseek_v3": {"num_key_value_heads": 4, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "electra": {"embedding_size": 32},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3n_text": {
        "num_kv_shared_layers": 1, "layer_types": ["full_attention"] * 2, "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 16, "activation_sparsity_pattern": [0.9, 0.0], "laurel_rank": 8,
    },
    "gptj": {"rotary_dim": 16},
    "codegen": {"rotary_dim": 16},
    "moonshine": {"encoder_num_attention_heads": 4, "encoder_num_key_value_heads": 4, "decoder_num_attention_heads": 4,
                  "decoder_num_key_value_heads": 4},  # of which the whole share of channels rotates
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 24},
    "granitemoehybrid": {
        "num_local_experts": 0, "num_experts_per_tok": 0, "layer_types": ["mamba", "attention"], "mamba_n_heads": 8,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "n_groups": 1},  # several 4.57 norms together
    "qwen2_5_vl": {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
    "qwen2_vl": {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
    "roberta": {"max_position_embeddings": CONTEXT + 2},
    "whisper": {"max_source_positions": 1500},
}  # fmt: skip
NO_TYPES = ("big_bird", "ibert", "xlm-roberta-xl")  # whose own tokenizers tell no text from its pair
KINDS = (
    ("causal", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, hf.AutoModelForCausalLM),
    ("masked", auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, hf.AutoModelForMaskedLM),
    ("seq2seq", auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, hf.AutoModelForSeq2SeqLM),
    ("speech", auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, hf.AutoModelForSpeechSeq2Seq),
    ("image-text", auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, hf.AutoModelForImageTextToText),
)


def make(model_type: str, out: Path) -> None:
    kind, model_class = head(model_type)
    config = small(hf.CONFIG_MAPPING[model_type], SPECIAL.get(model_type, {}))
    torch.manual_seed(sum(map(ord, model_type)))
    model = model_class.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.1) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    model.save_pretrained(out)
    byte_tokenizer(types=kind == "masked" and model_type not in NO_TYPES).save_pretrained(out)
    if kind == "speech":
        samples = model_type == "moonshine"  # which reads these themselves, and its checkpoints as they are
        extractor = hf.Wav2Vec2FeatureExtractor(do_normalize=False) if samples else hf.WhisperFeatureExtractor()
        extractor.save_pretrained(out)


def head(model_type: str) -> tuple[str, Any]:
    """What the type is best known for: an encoder is one also where transformers has a decoder of its layers."""
    names = [(kind, model_class) for kind, table, model_class in KINDS if model_type in table]
    if not names:
        raise ValueError(f"this transformers has no language model of type {model_type}")
    kinds = [kind for kind, _ in names]
    preferred = next(k for k in ("speech", "image-text", "seq2seq", "masked", "causal") if k in kinds)
    return names[kinds.index(preferred)]


def small(config_class: Any, changes: Mapping[str, Any]) -> Any:
    default = config_class()
    known = {*default.to_dict(), *inspect.signature(config_class.__init__).parameters, *default.attribute_map}
    taken: dict[str, Any] = {name: value for name, value in SIZES.items() if name in known} | TOKENS
    for name, part in config_class.sub_configs.items():
        own = changes if name == "text_config" else {}
        sized = small(part_class(default, name, part), own)
        taken[name] = {**sized.to_dict(), **(VISION if "vision" in name else {})}
    wholes = {} if "text_config" in config_class.sub_configs else changes
    return config_class(**{**taken, **copy.deepcopy(dict(wholes))})


def part_class(default: Any, name: str, declared: Any) -> Any:
    made = getattr(default, name, None)
    return declared if declared is not hf.AutoConfig else type(made)


def byte_tokenizer(*, types: bool) -> Any:
    """`types`: whether a text is told from its pair; the versions of transformers differ where nothing is said."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<unk>"}
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=CONTEXT, model_input_names=inputs, **names
    )


def main(out: Path, types: Sequence[str]) -> None:
    """A config whose sizes stayed large is an error of memory, not the end of the machine's."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out.mkdir()
    for model_type in types:
        try:
            make(model_type, out / model_type)
        except BaseException as error:
            (out / f"{model_type}.txt").write_text(f"{type(error).__name__}: {error}"[:300], encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
