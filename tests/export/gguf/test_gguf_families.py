"""Every family: a transformers model, stored by llama.cpp's conversion rules, must come back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.auto import CONFIG_MAPPING

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.sentence import sentence_encoder
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.gguf.rope import llama3_factors
from edgellm_export.sources.opening import open_checkpoint
from gguf_conversion import convert
from gguf_files import Array, byte_level, pieces, words, write_gguf
from gguf_models import FAMILIES, HYBRID, LATENT, LLAMA3_SCALING, SHARED, VOCAB, build, converted, seeded

# Keys whose values decide what the model computes, beside those of SHARED.
COMPARED = (
    "model_type", "tie_word_embeddings", "hidden_act", "hidden_activation", "attention_bias", "mlp_bias",
    "rope_scaling", "sliding_window", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
    "final_logit_softcapping", "rope_local_base_freq", "partial_rotary_factor", "use_sliding_window",
    "original_max_position_embeddings", "norm_epsilon", "use_bias", "layer_norm_eps", "rotary_pct", "rotary_emb_base",
    "use_parallel_residual", "num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size",
    "shared_expert_intermediate_size", "norm_topk_prob", "qkv_bias",
    "no_rope_layers", "clip_qkv", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "logits_scaling", "use_qkv_bias", "multi_query", "n_inner", "layer_norm_epsilon",
    "new_decoder_architecture", "num_kv_heads", "num_ln_in_parallel_attn", "parallel_attn", "alibi", "bias",
    "d_model", "n_layers", "n_heads", "max_seq_len", "router_jitter_noise", "lm_head_bias",
    "logit_scale", "use_qk_norm", "norm_eps", "attention_out_bias", "conv_L_cache", "conv_bias",
    "block_auto_adjust_ff_dim",
    "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "first_k_dense_replace",
    "n_routed_experts", "n_shared_experts", "routed_scaling_factor", "topk_method", "rope_interleave",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_config_and_tensors_come_back(tmp_path: Path, family: str) -> None:
    model = build(family)
    checkpoint = open_checkpoint(str(converted(tmp_path / "w.gguf", family, model)))
    original = CONFIG_MAPPING[model.config.model_type](**checkpoint.config)
    known = type(model.config)().to_dict()
    for key in filter(known.__contains__, (*SHARED, *COMPARED)):
        assert getattr(original, key, None) == getattr(model.config, key, None), key
    assert checkpoint.config["architectures"] == [type(model).__name__]

    expected = model.state_dict()
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    same_tensors(checkpoint, expected)


@pytest.mark.parametrize("model_type", ["granitemoe", "granitemoehybrid"])
def test_granites_experts_come_back_apart(model_type: str, tmp_path: Path) -> None:
    """Conversion has cut gates and ups from each other."""
    multipliers = {
        "attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0,
    }  # fmt: skip
    more = {**HYBRID, "shared_intermediate_size": 80} if model_type == "granitemoehybrid" else {}
    sizes = {**SHARED, **more, "num_local_experts": 3, "num_experts_per_tok": 2}
    config = CONFIG_MAPPING[model_type](**sizes, **multipliers)
    model = seeded(AutoModelForCausalLM.from_config(config))
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level())))
    assert {key: checkpoint.config[key] for key in multipliers} == multipliers
    expected = model.state_dict()
    for layer in range(config.num_hidden_layers):
        block = f"model.layers.{layer}.block_sparse_moe"
        both, down = expected.pop(f"{block}.input_linear.weight"), expected.pop(f"{block}.output_linear.weight")
        for i in range(3):
            gate, up = both[i].chunk(2)
            parts = {"gate": gate, "up": up, "down": down[i]}
            expected |= {f"{block}.experts.{i}.{name}_proj.weight": part for name, part in parts.items()}
    same_tensors(checkpoint, expected)


def test_gpt_oss_experts_come_back_apart(tmp_path: Path) -> None:
    """Conversion has cut gates and ups from each other, and turned all matrices."""
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "truncate": False}
    sizes = {**SHARED, "head_dim": 32, "num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 8}
    model = seeded(AutoModelForCausalLM.from_config(CONFIG_MAPPING["gpt_oss"](**sizes, rope_scaling=rope)))
    more = {
        "attention.sliding_window": 8,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 32,
    }
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(), more)))
    assert checkpoint.config["rope_scaling"] == rope
    assert (checkpoint.config["sliding_window"], checkpoint.config["intermediate_size"]) == (8, 96)
    expected = model.state_dict()
    for layer in range(model.config.num_hidden_layers):
        name = f"model.layers.{layer}.mlp.experts"
        both, down = expected.pop(f"{name}.gate_up_proj"), expected.pop(f"{name}.down_proj")
        biases = expected.pop(f"{name}.gate_up_proj_bias"), expected.pop(f"{name}.down_proj_bias")
        expected[f"model.layers.{layer}.self_attn.sinks.weight"] = expected.pop(f"model.layers.{layer}.self_attn.sinks")
        for i in range(3):
            parts = {"gate": (both[i, :, ::2], biases[0][i, ::2]), "up": (both[i, :, 1::2], biases[0][i, 1::2])}
            for part, (matrix, bias) in {**parts, "down": (down[i], biases[1][i])}.items():
                expected |= {f"{name}.{i}.{part}_proj.weight": matrix.T, f"{name}.{i}.{part}_proj.bias": bias}
    same_tensors(checkpoint, expected)


def test_an_older_deepseek2_has_keys_and_values_of_heads(tmp_path: Path) -> None:
    """In one matrix, as the checkpoint."""
    model = build("deepseek2")
    older = {
        "attention.head_count_kv": 4, "attention.key_length": 40, "attention.value_length": 20,
        "attention.key_length_mla": None, "attention.value_length_mla": None, "expert_gating_func": None,
    }  # fmt: skip
    tensors: dict[str, Any] = {f"blk.{i}.attn_{side}_b.weight": None for i in range(2) for side in "kv"}
    for i, layer in enumerate(model.model.layers):
        tensors[f"blk.{i}.attn_kv_b.weight"] = layer.self_attn.kv_b_proj.weight.detach().numpy()
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(), older, tensors)))
    sizes = {key: value for key, value in LATENT.items() if key != "topk_method"}
    assert {key: checkpoint.config[key] for key in sizes} == sizes
    assert checkpoint.config["model_type"] == "deepseek_v2"
    same_tensors(checkpoint, model.state_dict())


@pytest.mark.parametrize(("key", "value"), [("attention.head_count_kv", 2), ("expert_gating_func", 3)])
def test_another_deepseek2_is_refused(tmp_path: Path, key: str, value: object) -> None:
    model = build("deepseek2")
    with pytest.raises(UnsupportedModelError, match=rf"deepseek2\.{key} is {value}; edgellm builds this architecture"):
        open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(), {key: value})))


def test_gpt2_matrices_come_back_as_conv1d(tmp_path: Path) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 128}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gpt2"](vocab_size=VOCAB, **sizes))
    says_nothing_new = {
        "attention.causal": True,
        "attention.head_count_kv": 4,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "attention.scale": 8**-0.5,
        "pooling_type": 0,
    }
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(), says_nothing_new)))
    assert {key: checkpoint.config[key] for key in sizes} == sizes
    assert checkpoint.config["layer_norm_epsilon"] == 1e-5
    same_tensors(checkpoint, {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"})


@pytest.mark.parametrize(
    ("key", "value"), [("attention.causal", False), ("attention.head_count_kv", 2), ("attention.scale", 1.0)]
)
def test_a_gpt2_of_another_kind_is_refused(tmp_path: Path, key: str, value: object) -> None:
    model = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING["gpt2"](vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=4, n_positions=64, n_inner=128)
    )
    with pytest.raises(UnsupportedModelError, match=rf"gpt2\.{key} is {value}; edgellm builds this architecture only"):
        open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(), {key: value})))


def same_tensors(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert set(checkpoint.tensors) == set(expected)
    for name, value in expected.items():
        tensor = checkpoint.tensors[name]
        assert tensor.shape == tuple(value.shape)
        numbers, rows = np.atleast_1d(value.float().numpy()), (tensor.shape or (1,))[0]
        np.testing.assert_allclose(tensor.rows(0, rows), numbers, rtol=0, atol=1e-6)
        part = slice(rows // 3, rows // 2 + 1)
        np.testing.assert_allclose(tensor.rows(part.start, part.stop), numbers[part], rtol=0, atol=1e-6)


ENCODERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "bert": (hf.BertModel, {}, words("a", "##b")),
    "distilbert": (hf.DistilBertModel, {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2}, words("a", "##b")),
    "roberta": (hf.RobertaModel, {"pad_token_id": 1, "type_vocab_size": 1}, byte_level(padding_token_id=1)),
    "xlm-roberta": (hf.XLMRobertaModel, {"pad_token_id": 1, "type_vocab_size": 1}, pieces("a", padding_token_id=1)),
}
ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_come_back(tmp_path: Path, name: str) -> None:
    model_class, changes, tokenizer = ENCODERS[name]
    vocab = len(tokenizer["tokenizer.ggml.tokens"])
    config = model_class.config_class(**{"vocab_size": vocab, **ENCODER, **changes})
    model = model_class(config)
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, tokenizer, {"pooling_type": 1})))
    assert checkpoint.config["model_type"] == name
    assert checkpoint.config["architectures"] == [model_class.__name__]
    original = model_class.config_class(**checkpoint.config)
    known = model_class.config_class().to_dict()
    for key in filter(known.__contains__, (*ENCODER, *changes, "layer_norm_eps", "vocab_size")):
        assert getattr(original, key, None) == getattr(config, key, None), key
    prefix = {"xlm-roberta": "roberta"}.get(name, name)
    expected = {f"{prefix}.{key}": value for key, value in model.state_dict().items() if "pooler" not in key}
    if "roberta" in name:  # positions that no token takes are cut off
        expected[f"{prefix}.embeddings.position_embeddings.weight"][:2] = 0
    same_tensors(checkpoint, expected)
    assert json.loads(checkpoint.files["1_Pooling/config.json"])["pooling_mode_mean_tokens"] is True
    found = sentence_encoder(checkpoint.files, 512)
    assert found is not None
    assert (found.embedding.pooling, found.embedding.normalize) == ("mean", True)
    assert found.embedding.max_tokens == 40 - 2 * ("roberta" in name)


ENDS = {"bos_token_id": 0, "add_bos_token": True, "add_eos_token": True}
PAIRS = {
    "bert": (words("a", "b"), "[CLS]a[SEP]b[SEP]"),
    "distilbert": (words("a", "b"), "[CLS]a[SEP]b[SEP]"),
    "roberta": (byte_level(**ENDS, padding_token_id=1), "!a<|end|><|end|>b<|end|>"),
    "xlm-roberta": (pieces("\u2581a", "\u2581b", **ENDS, padding_token_id=1), "<pad>\u2581a</s></s>\u2581b</s>"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_texts_are_put_together_as_the_family_does(tmp_path: Path, name: str) -> None:
    tokenizer, expected = PAIRS[name]
    model_class, changes, _ = ENCODERS[name]
    vocab = len(tokenizer["tokenizer.ggml.tokens"])
    model = model_class(model_class.config_class(**{"vocab_size": vocab, **ENCODER, **changes}))
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, tokenizer)))
    read = Tokenizer.from_buffer(checkpoint.files["tokenizer.json"])
    assert "".join(read.encode("a", "b").tokens) == expected


def test_t5_comes_back(tmp_path: Path) -> None:
    tokenizer = pieces("a", "b")
    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 48, "d_kv": 16, "num_heads": 2, "num_layers": 1}
    for kind, tied in (("relu", True), ("gated-gelu", False)):
        config = hf.T5Config(
            vocab_size=7, num_decoder_layers=2, feed_forward_proj=kind, tie_word_embeddings=tied, **sizes
        )
        model = hf.T5ForConditionalGeneration(config)
        checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, tokenizer, {"decoder_start_token_id": 0})))
        original = hf.T5Config(**checkpoint.config)
        for key in (*sizes, "num_decoder_layers", "feed_forward_proj", "tie_word_embeddings", "layer_norm_epsilon"):
            assert getattr(original, key) == getattr(config, key), key
        left_out = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(["lm_head.weight"] if tied else [])}
        same_tensors(checkpoint, {name: v for name, v in model.state_dict().items() if name not in left_out})


def test_llama3_factors_are_those_of_transformers() -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = CONFIG_MAPPING["llama"](**{**SHARED, "head_dim": 64, "rope_scaling": LLAMA3_SCALING})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain, _ = ROPE_INIT_FUNCTIONS["linear"](
        CONFIG_MAPPING["llama"](**{**SHARED, "head_dim": 64, "rope_scaling": {"rope_type": "linear", "factor": 1.0}}),
        "cpu",
    )
    factors = llama3_factors(LLAMA3_SCALING, config.rope_theta, 64)
    np.testing.assert_allclose(factors, (plain / scaled).numpy(), rtol=1e-5)


def small_llama(path: Path, metadata: dict[str, Any], tensors: dict[str, Array] | None = None) -> dict[str, Any]:
    from gguf_files import LLAMA, llama_tensors

    write_gguf(path, "llama", LLAMA | byte_level() | metadata, llama_tensors(VOCAB) | (tensors or {}))
    return dict(open_checkpoint(str(path)).config)


SCALINGS: dict[str, tuple[dict[str, Any], Any]] = {
    "none": ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
    "factor one": ({"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, None),
    "linear": (
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {"rope_type": "linear", "factor": 4.0},
    ),
    "old linear": ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
    "yarn": (
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    ),
    "yarn in detail": (
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.yarn_beta_fast": 8.0,
            "rope.scaling.yarn_beta_slow": 2.0,
            "rope.scaling.yarn_attn_factor": 1.5,
            "rope.scaling.attn_factor": 2.0,
        },
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 8.0,
            "beta_slow": 2.0,
            "attention_factor": 3.0,
        },
    ),
}


@pytest.mark.parametrize("case", SCALINGS)
def test_rope_scaling(tmp_path: Path, case: str) -> None:
    metadata, expected = SCALINGS[case]
    assert small_llama(tmp_path / "w.gguf", metadata).get("rope_scaling") == expected


def test_unexplained_rope_factors_are_passed_on(tmp_path: Path) -> None:
    factors = np.linspace(1, 3, 8, dtype=np.float32)
    config = small_llama(tmp_path / "w.gguf", {}, {"rope_freqs.weight": factors})
    assert "rope_scaling" not in config
    np.testing.assert_array_equal(np.array(config["rope_freq_factors"], np.float32), factors)


def test_long_rope_factors_become_lists(tmp_path: Path) -> None:
    factors = {
        "rope_factors_long.weight": np.full(8, 2, np.float32),
        "rope_factors_short.weight": np.ones(8, np.float32),
    }
    config = small_llama(tmp_path / "w.gguf", {}, factors)
    assert config["rope_scaling"] == {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.0] * 8}


SCALINGS_REFUSED = {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_ext_factor": 0.5}
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "experts": ({"expert_count": 8}, CheckpointError, "llama.expert_used_count is absent"),
    "unknown key": ({"magic": 1}, UnsupportedModelError, r"does not know, .* llama\.magic; export the Hugging"),
    "logit scale": ({"logit_scale": 0.5}, UnsupportedModelError, r"llama\.logit_scale"),
    "attention scale": (
        {"attention.scale": 0.5},
        UnsupportedModelError,
        r"attention\.scale is 0.5; .* only with 0 or 0",
    ),
    "not causal": ({"attention.causal": False}, UnsupportedModelError, r"attention\.causal is False"),
    "alibi": ({"attention.max_alibi_bias": 8.0}, UnsupportedModelError, "max_alibi_bias"),
    "clamped": ({"attention.clamp_kqv": 8.0}, UnsupportedModelError, "clamp_kqv"),
    "wide values": ({"attention.value_length": 32}, UnsupportedModelError, r"value_length is 32; .* with 0 or 16"),
    "ranks": ({"pooling_type": 4}, UnsupportedModelError, r"ranks texts \(llama.pooling_type is 4\) by a head"),
    "unknown pooling": ({"pooling_type": 5}, UnsupportedModelError, "pooling_type is 5; edgellm builds 1"),
    "sections": ({"rope.dimension_sections": [4, 4, 0, 0]}, UnsupportedModelError, "dimension_sections"),
    "scaled attention": ({"rope.scaling.attn_factor": 1.5}, UnsupportedModelError, "attn_factor"),
    "part of yarn": (SCALINGS_REFUSED, UnsupportedModelError, "yarn_ext_factor is 0.5"),
    "yarn by logarithm": (
        SCALINGS_REFUSED | {"rope.scaling.yarn_ext_factor": 1.0, "rope.scaling.yarn_log_multiplier": 0.1},
        UnsupportedModelError,
        "yarn_log_multiplier",
    ),
    "adapter": ({"general.type": "adapter"}, UnsupportedModelError, r"is not a model \(adapter\)"),
    "projector": (
        {"general.type": "mmproj"},
        UnsupportedModelError,
        "the part of a multimodal model that reads images",
    ),
    "old quantization": (
        {"general.quantization_version": 1},
        UnsupportedModelError,
        "quantization version 1, expected 2",
    ),
    "unknown scaling": ({"rope.scaling.type": "ntk"}, UnsupportedModelError, "scales rotary positions by 'ntk'"),
    "no layers": ({"block_count": 0}, CheckpointError, "block_count is 0, expected a number above 0"),
    "too many layers": ({"block_count": 2**31}, CheckpointError, "but there are 11 tensors"),
    "heads per layer": ({"attention.head_count_kv": [2, 1]}, CheckpointError, "head_count_kv is"),
    "text for a number": ({"context_length": "many"}, CheckpointError, "context_length is 'many'"),
    "odd head size": ({"attention.key_length": 13}, CheckpointError, "multiple of the head size 13"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_metadata_is_refused(tmp_path: Path, case: str) -> None:
    metadata, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        small_llama(tmp_path / "w.gguf", metadata)


NEUTRAL: dict[str, Any] = {
    "logit_scale": 1.0,
    "attention.scale": 0.25,
    "attention.value_length": 16,
    "attention.max_alibi_bias": 0.0,
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "pooling_type": 0,
    "vocab_size": VOCAB,
    "tensor_data_layout": "Meta AI original pth",
    "rope.dimension_sections": [0, 0, 0, 0],
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.finetuned": False,
    "general.quantization_version": 2,
    "general.type": "model",
}


def test_keys_that_say_nothing_new_are_taken(tmp_path: Path) -> None:
    assert small_llama(tmp_path / "a.gguf", NEUTRAL) == small_llama(tmp_path / "b.gguf", {})


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int8])
def test_types_are_looked_at_before_numbers(tmp_path: Path, dtype: type[np.generic]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"rope_freqs\.weight has type .*, which cannot be read"):
        small_llama(tmp_path / "w.gguf", {}, {"rope_freqs.weight": np.ones(8, dtype)})


ENCODERS_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Array], str]] = {
    "causal": ({"attention.causal": True}, {}, r"attention\.causal is True; .* only with False"),
    "unknown pooling": ({"pooling_type": 5}, {}, "pooling_type is 5; edgellm builds 1"),
    "head without pooler": ({}, {"cls.output.weight": np.ones((1, 32), np.float32)}, "without the layer in front"),
    "dense step": ({}, {"dense_2.weight": np.ones((32, 32), np.float32)}, r"has dense_2\.weight, a step behind"),
    "unknown key": ({"hidden_activation": "silu"}, {}, r"bert\.hidden_activation"),
}


@pytest.mark.parametrize("case", ENCODERS_REFUSED)
def test_encoders_of_other_kinds_are_refused(tmp_path: Path, case: str) -> None:
    metadata, tensors, message = ENCODERS_REFUSED[case]
    tokenizer = words("a", "##b")
    model = hf.BertModel(hf.BertConfig(vocab_size=7, **ENCODER))
    with pytest.raises(UnsupportedModelError, match=message):
        open_checkpoint(str(convert(tmp_path / "w.gguf", model, tokenizer, metadata, tensors)))


def test_labels_of_roberta_come_back(tmp_path: Path) -> None:
    labels = {0: "bad", 1: "good", 2: "neither"}
    config = hf.RobertaConfig(vocab_size=261, pad_token_id=1, type_vocab_size=1, id2label=labels, **ENCODER)
    model = hf.RobertaForSequenceClassification(config)
    more = {"pooling_type": 4, "classifier.output_labels": list(labels.values())}
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(padding_token_id=1), more)))
    assert checkpoint.config["architectures"] == ["RobertaForSequenceClassification"]
    assert checkpoint.config["id2label"] == {str(i): label for i, label in labels.items()}
    for part in ("dense", "out_proj"):
        expected = model.classifier.get_submodule(part).weight.detach().numpy()
        found = checkpoint.tensors[f"classifier.{part}.weight"]
        np.testing.assert_array_equal(found.rows(0, found.shape[0]), expected)


def test_an_embedding_that_is_the_head_too_is_tied_however_it_is_rounded(tmp_path: Path) -> None:
    config = hf.T5Config(
        vocab_size=7, d_model=32, d_ff=48, d_kv=16, num_heads=2, num_layers=1, decoder_start_token_id=0
    )
    model = hf.T5ForConditionalGeneration(config)
    shared = model.shared.weight.detach().numpy()
    for head, tied in ((shared * 1.05, True), (shared[::-1].copy(), False)):
        path = convert(tmp_path / "w.gguf", model, pieces("a", "b"), {}, {"output.weight": head})
        assert open_checkpoint(str(path)).config["tie_word_embeddings"] is tied


def test_umt5_has_relative_positions_of_each_layer(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 48, "d_kv": 16, "num_heads": 2, "num_layers": 2}
    config = hf.UMT5Config(vocab_size=7, num_decoder_layers=3, tie_word_embeddings=False, **sizes)
    model = hf.UMT5ForConditionalGeneration(config)
    checkpoint = open_checkpoint(
        str(convert(tmp_path / "w.gguf", model, pieces("a", "b"), {"decoder_start_token_id": 0}))
    )
    assert checkpoint.config["model_type"] == "umt5"
    original = hf.UMT5Config(**checkpoint.config)
    for key in (*sizes, "num_decoder_layers", "feed_forward_proj", "tie_word_embeddings", "layer_norm_epsilon"):
        assert getattr(original, key) == getattr(config, key), key
    left_out = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    same_tensors(checkpoint, {name: v for name, v in model.state_dict().items() if name not in left_out})


def test_numbers_beside_matrices_are_multiplied_in(tmp_path: Path) -> None:
    from gguf_files import LLAMA, llama_tensors

    tensors = llama_tensors(VOCAB) | {"blk.0.ffn_up.scale": np.full(1, 0.5, np.float32)}
    checkpoint = open_checkpoint(str(write_gguf(tmp_path / "w.gguf", "llama", LLAMA | byte_level(), tensors)))
    found = checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].rows(3, 7)
    np.testing.assert_array_equal(found, tensors["blk.0.ffn_up.weight"][3:7] * 0.5)
    assert "blk.0.ffn_up.scale" not in checkpoint.tensors


def test_models_of_images_are_named(tmp_path: Path) -> None:
    from gguf_files import LLAMA, llama_tensors

    tensors = llama_tensors(VOCAB) | {"v.blk.0.attn_q.weight": np.ones((4, 4), np.float32)}
    with pytest.raises(UnsupportedModelError, match="holds a model of images beside the language model"):
        open_checkpoint(str(write_gguf(tmp_path / "w.gguf", "llama", LLAMA | byte_level(), tensors)))


def test_all_absent_keys_are_named_at_once(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "w.gguf", "llama", {}, {"token_embd.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match=r"head_count is absent.*embedding_length is absent.*feed_forward_length"):
        open_checkpoint(str(path))


def test_unknown_tensors_keep_their_names_so_that_accounting_sees_them(tmp_path: Path) -> None:
    from gguf_files import LLAMA, llama_tensors

    extra = {"blk.0.attn_sinks.weight": np.ones(4, np.float32), "blk.0.attn_rot_embd": np.ones(4, np.float32)}
    path = write_gguf(tmp_path / "w.gguf", "llama", LLAMA | byte_level(), llama_tensors(VOCAB) | extra)
    tensors = open_checkpoint(str(path)).tensors
    assert "blk.0.attn_sinks.weight" in tensors
    assert "blk.0.attn_rot_embd" not in tensors
