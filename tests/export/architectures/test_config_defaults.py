"""What a config leaves unsaid is what transformers takes, for every family."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.architectures import FAMILIES, kind_of, read_family
from edgellm_export.architectures.defaults import ALIASES, DEFAULTS, completed
from edgellm_export.architectures.elsewhere import OPTIMUM

# What has to be said of a family whose defaults are not built.
NOT_BY_DEFAULT = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "granitemoehybrid": {"num_local_experts": 0, "layer_types": ["attention"] * 32},
}
# Other names of keys that a class reads by itself.
READ_BY_CLASS = {"lfm2": {"block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"}}
NEWER = ("eurobert", "gte", "new", "nomic_bert")  # which transformers 4.57 has not; tests/parity compares them with 5
TYPES = sorted(name for families in FAMILIES.values() for name in families)


OF_TRANSFORMERS = [name for name in TYPES if name not in NEWER]


@pytest.mark.parametrize("model_type", OF_TRANSFORMERS)
def test_a_config_of_nothing_but_its_type_is_one_with_all_defaults_of_the_class(model_type: str) -> None:
    given = NOT_BY_DEFAULT.get(model_type, {})
    whole = json.loads(CONFIG_MAPPING[model_type](**given).to_json_string(use_diff=False))
    assert repr(read_family({"model_type": model_type, **given}, 1000)) == repr(read_family(whole, 1000))


@pytest.mark.parametrize("model_type", OF_TRANSFORMERS)
def test_a_key_has_the_names_that_the_class_has_for_it(model_type: str) -> None:
    names = CONFIG_MAPPING[model_type].attribute_map
    known = dict(ALIASES.get(model_type, {}))
    if model_type in (
        "bart",
        "blenderbot",
        "blenderbot-small",
        "led",
        "m2m_100",
        "marian",
        "mbart",
        "pegasus",
        "whisper",
    ):
        assert known.pop("num_hidden_layers") == "encoder_layers"  # since transformers 5
    assert known == names | READ_BY_CLASS.get(model_type, {})


def test_every_family_has_its_defaults() -> None:
    assert sorted(DEFAULTS) == TYPES


def test_another_name_of_a_key_wins() -> None:
    config = completed({"model_type": "gpt2", "n_embd": 8, "hidden_size": 16})
    assert config["n_embd"] == 16
    assert "hidden_size" not in config


def test_null_is_not_the_default() -> None:
    assert completed({"model_type": "mistral", "sliding_window": None})["sliding_window"] is None


def test_layers_beyond_the_tensors_are_refused() -> None:
    with pytest.raises(CheckpointError, match="num_hidden_layers is 32, and the checkpoint has only 7 tensors"):
        read_family({"model_type": "llama"}, 7)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "internlm2"}, "run `edgellm export SOURCE OUT --via optimum`"),
        ({"model_type": "xlm"}, "run `edgellm export SOURCE OUT --via optimum`"),
        ({"model_type": "flaubert"}, "run `edgellm export SOURCE OUT --via optimum`"),
        ({"model_type": "longformer"}, "nor does --via optimum"),
        ({"model_type": "kosmos-2", "text_config": {}, "vision_config": {}}, "parts .text_config, vision_config"),
        ({"model_type": "mamba"}, "nor has optimum-onnx 0.1"),
    ],
)
def test_an_unknown_model_type_says_what_would_work(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(UnsupportedModelError, match=expected):
        kind_of(config)


def test_the_list_of_optimums_model_types_is_optimums() -> None:
    pytest.importorskip("optimum.exporters.onnx")
    import optimum.exporters.onnx.model_configs  # noqa: F401  # which fills the tables
    from optimum.exporters.tasks import TasksManager

    supported = TasksManager._LIBRARY_TO_SUPPORTED_MODEL_TYPES["transformers"]
    assert {name for name, exporters in supported.items() if "onnx" in exporters} >= OPTIMUM


LIKE_LLAMA = (
    "apertus", "arcee", "bitnet", "cohere", "ernie4_5", "glm", "glm4", "helium", "hunyuan_v1_dense", "nemotron",
    "seed_oss",
)  # fmt: skip
DECODERS = (
    "bart", "bloom", "codegen", "falcon", "gemma", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite",
    "llama", "marian", "mistral", "mpt", "olmo", "olmo2", "opt", "phi", "phi3", "stablelm", "starcoder2", "t5",
)  # fmt: skip
WINDOWLESS = (
    "bart", "bloom", "codegen", "falcon", "gemma", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite",
    "llama", "marian", "mpt", "olmo", "olmo2", "opt", "phi", "stablelm", "t5",
)  # fmt: skip
MIXTURES = ("deepseek_v3", "gpt_oss", "granitemoe", "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe")
OTHER_MODELS = [
    *(
        (name, key, value)
        for name in LIKE_LLAMA
        for key, value in (
            ("is_causal", False),
            ("attention_chunk_size", 4),
            ("layer_types", ["chunked_attention"]),
            ("sliding_window", 4),
        )
    ),
    *((name, "attention_chunk_size", 4) for name in ("cohere2", "exaone4")),
    ("apertus", "hidden_act", "silu"),
    ("nemotron", "rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    *((name, "is_causal", False) for name in (*DECODERS, "gemma2", "gemma3_text", "qwen3")),
    *((name, "is_causal", False) for name in MIXTURES),
    *((name, "attention_chunk_size", 4) for name in MIXTURES),
    *((name, "layer_types", ["chunked_attention"]) for name in MIXTURES if name != "gpt_oss"),
    *((name, "sliding_window", 4) for name in ("deepseek_v3", "granitemoe", "olmoe")),
    ("deepseek_v2", "norm_topk_prob", True),
    ("deepseek_v2", "mlp_bias", True),
    ("deepseek_v2", "scoring_func", "sigmoid"),
    ("deepseek_v2", "topk_method", "noaux_tc"),
    ("deepseek_v3", "topk_method", "greedy"),
    ("deepseek_v3", "moe_layer_freq", 2),
    ("qwen2_moe", "use_sliding_window", True),
    ("gpt_oss", "swiglu_limit", 9.0),
    *((name, "is_causal", None) for name in (*DECODERS, "gemma2", "gemma3_text", "qwen3")),
    *((name, "is_causal", True) for name in FAMILIES["encoder"]),
    *((name, "attention_chunk_size", 4) for name in DECODERS),
    *((name, "layer_types", [["a"]]) for name in DECODERS if name != "mistral"),
    *((name, "layer_types", ["chunked_attention"]) for name in DECODERS if name != "mistral"),
    *((name, "sliding_window", 4) for name in WINDOWLESS),
    *((name, "per_layer_config", {"0": {"hidden_act": "relu"}}) for name in TYPES),
    ("deberta", "talking_head", True),
    ("rembert", "tie_word_embeddings", True),
    ("roformer", "rotary_value", True),
    ("deberta-v2", "conv_kernel_size", 3),
    ("deberta-v2", "embedding_size", 128),
    ("gemma3_text", "rope_scaling", {"type": "linear", "factor": 8.0}),
]


@pytest.mark.parametrize(("model_type", "key", "value"), OTHER_MODELS)
def test_a_key_that_makes_another_model_of_the_same_tensors_is_refused(model_type: str, key: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=key):
        read_family({"model_type": model_type, key: value}, 1000)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"encoder": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}}, "rope_scaling has the type 'linear'"),
        ({"decoder": {"per_layer_config": {}}}, "per_layer_config"),
        ({"decoder": {"is_causal": False}}, "is_causal"),
        ({"encoder": {"vocab_size": 7}}, r"vocab_size is \[7, 256000\] in its parts"),
        ({"encoder": 5}, "encoder is 5, expected the object"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_side_of_t5gemma_is_said(keys: dict[str, Any], message: str) -> None:
    with pytest.raises((UnsupportedModelError, CheckpointError), match=message):
        read_family({"model_type": "t5gemma", **keys}, 1000)


@pytest.mark.parametrize(
    ("model_type", "keys"),
    [
        ("llama", {"sliding_window": None, "layer_types": ["full_attention"] * 32, "attention_chunk_size": None}),
        ("phi3", {"sliding_window": 4, "layer_types": ["sliding_attention"] * 32}),
        ("bert", {"is_causal": None}),
        ("t5", {"layer_types": ["full_attention"] * 6}),
    ],
)
def test_a_key_that_says_what_is_so_anyway_is_none(model_type: str, keys: dict[str, Any]) -> None:
    beside = {"sliding_window": keys["sliding_window"]} if keys.get("sliding_window") else {}
    assert repr(read_family({"model_type": model_type, **keys}, 1000)) == repr(
        read_family({"model_type": model_type, **beside}, 1000)
    )


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("bert", "hidden_act"), ("bart", "activation_function"), ("gemma2", "hidden_activation"),
        ("llama", "hidden_act"), ("t5", "feed_forward_proj"),
    ],
)  # fmt: skip
def test_null_is_no_name(model_type: str, key: str) -> None:
    with pytest.raises(CheckpointError, match=f"{key} is null, expected a name"):
        read_family({"model_type": model_type, key: None}, 1000)
