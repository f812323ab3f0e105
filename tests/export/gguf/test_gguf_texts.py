"""Models of text inside of others, and those that make vectors of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.auto import CONFIG_MAPPING

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.sentence import sentence_encoder
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.gguf.keys import plain
from edgellm_export.gguf.shards import read_model
from edgellm_export.sources.opening import open_checkpoint
from gguf_conversion import convert, converted_tensors
from gguf_files import Array, byte_level, pieces, random, words, write_gguf
from gguf_models import SHARED, build, converted, seeded

SECTIONS = {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": True}
# By architecture and class: the class of the config, what it is besides, and further metadata.
TEXTS: dict[tuple[str, Any], tuple[Any, dict[str, Any], dict[str, Any]]] = {
    ("qwen2vl", hf.Qwen2VLTextModel): (
        hf.models.qwen2_vl.configuration_qwen2_vl.Qwen2VLTextConfig,
        SECTIONS,
        {"rope.dimension_sections": [2, 3, 3, 0]},
    ),
    ("qwen2vl", hf.Qwen2_5_VLTextModel): (
        hf.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLTextConfig,
        SECTIONS,
        {"rope.dimension_sections": [2, 3, 3, 0]},
    ),
    ("qwen3vl", hf.Qwen3VLTextModel): (
        hf.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLTextConfig,
        {**SECTIONS, "head_dim": 16},
        {"rope.dimension_sections": [2, 3, 3, 0], "n_deepstack_layers": 3},
    ),
}


@pytest.mark.parametrize("family", TEXTS)
@torch.no_grad()
def test_the_model_of_text_is_that_of_text_alone(tmp_path: Path, family: tuple[str, Any]) -> None:
    """Read as Qwen2 or Qwen3, it gives the states that the model inside of the whole gives."""
    config_class, values, more = TEXTS[family]
    torch.manual_seed(0)
    model = seeded(family[1](config_class(**{**SHARED, **values})), 0.1)
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, byte_level(), more, arch=family[0])))
    assert checkpoint.config["model_type"] == {"qwen2vl": "qwen2", "qwen3vl": "qwen3"}[family[0]]
    assert set(checkpoint.tensors) == {f"model.{name}" for name in model.state_dict()}
    read = loaded(AutoModelForCausalLM, checkpoint).model
    ids = torch.tensor(np.random.default_rng(0).integers(0, 259, (1, 40)))
    expected = model(ids).last_hidden_state
    torch.testing.assert_close(read(ids).last_hidden_state, expected, rtol=0, atol=1e-4)


def loaded(kind: Any, checkpoint: Checkpoint, prefix: str = "") -> Any:
    """transformers' model of what was read. `prefix`: of names, which it has not."""
    model = kind.from_config(CONFIG_MAPPING[checkpoint.config["model_type"]](**checkpoint.config)).eval()
    tensors = checkpoint.tensors.items()
    state = {name.removeprefix(prefix): torch.tensor(each.rows(0, each.shape[0])) for name, each in tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model


def embedding_gemma(scale: float = 0.1) -> torch.nn.Module:
    torch.manual_seed(0)
    own = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "rope_theta": 1e6}
    types = ["sliding_attention", "full_attention"]
    config = hf.Gemma3TextConfig(**{**SHARED, **own}, layer_types=types, use_bidirectional_attention=True)
    return seeded(hf.Gemma3TextModel(config), scale)


# A window as config.json has it, of which the class makes half, and one.
GEMMA = {"attention.sliding_window": 16, "attention.sliding_window_pattern": 2, "pooling_type": 1}


def gemma_file(path: Path, more: dict[str, Any] | None = None, tensors: dict[str, Array] | None = None) -> Path:
    return convert(path, embedding_gemma(), byte_level(), GEMMA | (more or {}), tensors, arch="gemma-embedding")


@torch.no_grad()
def test_embedding_gemma_comes_back(tmp_path: Path) -> None:
    steps = {"dense_2.weight": random(96, 64), "dense_3.weight": random(64, 96)}
    sizes = {"dense_2_feat_in": 64, "dense_2_feat_out": 96, "dense_3_feat_in": 96, "dense_3_feat_out": 64}
    checkpoint = open_checkpoint(str(gemma_file(tmp_path / "w.gguf", sizes, steps)))
    model = embedding_gemma()
    read = loaded(AutoModel, checkpoint, "model.")
    ids = torch.tensor(np.random.default_rng(0).integers(0, 259, (1, 40)))
    torch.testing.assert_close(read(ids).last_hidden_state, model(ids).last_hidden_state, rtol=0, atol=1e-4)
    found = sentence_encoder(checkpoint.files, 128, 64)
    assert found is not None
    assert (found.embedding.pooling, found.embedding.normalize) == ("mean", True)
    layers = [(step.path, step.outputs, step.inputs, step.bias, step.activation) for step in found.dense]
    assert layers == [("2_Dense", 96, 64, False, "Identity"), ("3_Dense", 64, 96, False, "Identity")]
    for path, expected in zip(("2_Dense", "3_Dense"), steps.values(), strict=True):
        step = checkpoint.steps[f"{path}.linear.weight"]
        np.testing.assert_array_equal(step.rows(0, step.shape[0]), expected)


def test_linear_layers_behind_another_model_keep_their_names(tmp_path: Path) -> None:
    tensors = {"dense_2.weight": random(96, 64)}
    path = convert(tmp_path / "w.gguf", build("gemma3"), byte_level(), {"attention.sliding_window": 32}, tensors)
    assert "dense_2.weight" in open_checkpoint(str(path)).tensors


def test_decoders_that_make_vectors_say_how(tmp_path: Path) -> None:
    path = convert(tmp_path / "w.gguf", build("qwen3"), byte_level(), {"pooling_type": 3, "attention.key_length": 32})
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.config["model_type"] == "qwen3"
    found = sentence_encoder(checkpoint.files, 128)
    assert found is not None
    assert (found.embedding.pooling, found.embedding.normalize, found.dense) == ("lasttoken", True, ())


MODERNBERT: dict[str, Any] = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
    "max_position_embeddings": 64, "local_attention": 16, "global_attn_every_n_layers": 3, "norm_eps": 1e-6,
    "global_rope_theta": 50000.0, "local_rope_theta": 20000.0, "pad_token_id": 0,
}  # fmt: skip
ENDS = {"bos_token_id": 0, "add_bos_token": True, "add_eos_token": True, "add_sep_token": True, "pre": "modern-bert"}


def modernbert(scale: float = 1.0) -> torch.nn.Module:
    torch.manual_seed(0)
    return seeded(hf.ModernBertModel(hf.ModernBertConfig(**MODERNBERT)), scale)


def modernbert_file(path: Path, more: dict[str, Any] | None = None, tensors: dict[str, Array] | None = None) -> Path:
    given = {"pooling_type": 2} | (more or {})
    return convert(path, modernbert(), byte_level(control=("<|end|>", "<|x|>"), **ENDS), given, tensors)


def test_modernbert_comes_back(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(modernbert_file(tmp_path / "w.gguf")))
    assert checkpoint.config["architectures"] == ["ModernBertModel"]
    original = hf.ModernBertConfig(**checkpoint.config)
    for key in (*(key for key in MODERNBERT if key != "pad_token_id"), "hidden_activation"):
        assert getattr(original, key) == getattr(hf.ModernBertConfig(**MODERNBERT), key), key
    same(checkpoint, {f"model.{name}": value.numpy() for name, value in modernbert().state_dict().items()})
    read = Tokenizer.from_buffer(checkpoint.files["tokenizer.json"])
    assert "".join(read.encode("a", "b").tokens) == "!a<|x|>b<|x|>"
    found = sentence_encoder(checkpoint.files, 64)
    assert found is not None
    assert found.embedding.pooling == "cls"


def test_modernberts_other_activation_comes_back(tmp_path: Path) -> None:
    path = modernbert_file(tmp_path / "w.gguf", {"hidden_activation": "silu"})
    assert open_checkpoint(str(path)).config["hidden_activation"] == "silu"


def same(checkpoint: Checkpoint, expected: dict[str, Array]) -> None:
    assert set(checkpoint.tensors) == set(expected)
    for name, value in expected.items():
        found = checkpoint.tensors[name]
        np.testing.assert_array_equal(found.rows(0, found.shape[0]), value)


NOMIC = {
    "block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 48,
    "attention.head_count": 2, "attention.layer_norm_epsilon": 1e-12, "attention.causal": False,
    "rope.freq_base": 1000.0, "pooling_type": 1, "tokenizer.ggml.token_type_count": 2,
}  # fmt: skip


def test_nomic_bert_comes_back(tmp_path: Path) -> None:
    """By the names of the checkpoints, which the package's table knows without their beginning."""
    tokenizer = words("a", "##b")
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.NOMIC_BERT, 1)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (7, 32), "embeddings.token_type_embeddings.weight": (2, 32),
        "emb_ln.weight": (32,), "emb_ln.bias": (32,), "encoder.layers.0.attn.Wqkv.weight": (96, 32),
        "encoder.layers.0.attn.out_proj.weight": (32, 32), "encoder.layers.0.norm1.weight": (32,),
        "encoder.layers.0.norm1.bias": (32,), "encoder.layers.0.mlp.fc11.weight": (48, 32),
        "encoder.layers.0.mlp.fc12.weight": (48, 32), "encoder.layers.0.mlp.fc2.weight": (32, 48),
        "encoder.layers.0.norm2.weight": (32,), "encoder.layers.0.norm2.bias": (32,),
    }  # fmt: skip
    numbers = {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    tensors = {str(table.get_name(name, (".weight", ".bias"))): value for name, value in numbers.items()}
    checkpoint = open_checkpoint(str(write_gguf(tmp_path / "w.gguf", "nomic-bert", NOMIC | tokenizer, tensors)))
    same(checkpoint, {f"nomic_bert.{name}": value for name, value in numbers.items()})
    expected = {
        "model_type": "nomic_bert", "hidden_size": 32, "intermediate_size": 48, "type_vocab_size": 2,
        "rope_theta": 1000.0, "hidden_act": "silu", "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64, "num_attention_heads": 2,
    }  # fmt: skip
    assert {key: checkpoint.config[key] for key in expected} == expected


def test_queries_keys_and_values_in_one_matrix_come_apart(tmp_path: Path) -> None:
    """As ChatGLM's own checkpoints have them."""
    model = build("chatglm")
    tensors = converted_tensors(model, "chatglm")
    for layer in range(2):
        for kind in ("weight", "bias"):
            sides = [tensors.pop(f"blk.{layer}.attn_{side}.{kind}") for side in "qkv"]
            tensors[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate(sides)
    whole = open_checkpoint(str(converted(tmp_path / "a.gguf", "chatglm", model)))
    metadata = {
        key: value for key, value in _metadata(tmp_path / "a.gguf").items() if not key.startswith(("GGUF.", "general."))
    }
    read = open_checkpoint(str(write_gguf(tmp_path / "b.gguf", "chatglm", metadata, tensors)))
    assert read.config == whole.config
    same(read, {name: each.rows(0, each.shape[0]) for name, each in whole.tensors.items()})


def _metadata(path: Path) -> dict[str, Any]:
    """Keys without the architecture's name, as write_gguf takes them."""
    given = read_model(path).metadata
    return {key.removeprefix("chatglm."): plain(value) for key, value in given.items()}


def longrope(path: Path) -> Path:
    factors = {f"rope_factors_{kind}.weight": np.ones(8, np.float32) for kind in ("long", "short")}
    return convert(path, build("phimoe"), byte_level(), {}, factors)


def grows(path: Path) -> Path:
    return convert(path, build("mamba2"), byte_level(), {}, {"blk.0.ssm_a": np.ones((8, 1), np.float32)})


def unscaled(path: Path) -> Path:
    return convert(path, build("granitehybrid with mamba"), byte_level(), {"attention.scale": None})


def heads_of_two_kinds(path: Path) -> Path:
    return convert(path, build("granitehybrid with mamba"), byte_level(), {"attention.head_count_kv": [1, 2, 0]})


def bitnet(path: Path) -> Path:
    return convert(path, build("bitnet"), byte_level())


def head(path: Path) -> Path:
    return modernbert_file(path, None, {"cls.weight": np.ones((32, 32), np.float32)})


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "falcon 2 without its base": (
        lambda path: convert(path, build("falcon 2"), byte_level()),
        UnsupportedModelError,
        "shaped as Falcon 2, the base of whose rope conversion to GGUF leaves out",
    ),
    "mpt without alibi": (
        lambda path: convert(path, build("mpt"), byte_level(), {"attention.max_alibi_bias": 0.0}),
        UnsupportedModelError,
        r"max_alibi_bias is 0.0; .* only with positions by ALiBi, and 8.0",
    ),
    "mpt of unknown positions": (
        lambda path: convert(path, build("mpt"), byte_level(), {"attention.max_alibi_bias": None}),
        UnsupportedModelError,
        "max_alibi_bias is None",
    ),
    "phimoe with factors": (longrope, UnsupportedModelError, "stretches its rope by factors, whose magnitudes"),
    "mamba that does not decay": (grows, CheckpointError, "blk.0.ssm_a has decays that are not below 0"),
    "bamba": (unscaled, UnsupportedModelError, "as files of Bamba do not"),
    "mamba beside heads of two kinds": (heads_of_two_kinds, CheckpointError, r"head_count_kv is \[1, 2, 0\]"),
    "bitnet of an unknown activation": (bitnet, UnsupportedModelError, "does not say its activation"),
    "xielu of too few layers": (
        lambda path: convert(path, build("apertus"), byte_level(), {"xielu.beta": [0.5, 0.5, 0.5]}),
        CheckpointError,
        "xielu.beta is not a number for each of 2 layers",
    ),
    "endless xielu": (
        lambda path: convert(path, build("apertus"), byte_level(), {"xielu.beta": [0.5, float("inf")]}),
        CheckpointError,
        "xielu.beta is not a number for each of 2 layers",
    ),
    "no xielu": (
        lambda path: convert(path, build("apertus"), byte_level(), {"xielu.eps": None}),
        CheckpointError,
        "xielu.eps is not a number for each of 2 layers",
    ),
    "half a window": (
        lambda path: gemma_file(path, {"attention.sliding_window": 9}),
        UnsupportedModelError,
        "sliding_window is 9, half of which the model sees to either side",
    ),
    "causal gemma": (
        lambda path: gemma_file(path, {"attention.causal": True}),
        UnsupportedModelError,
        "attention.causal is True; .* only with False",
    ),
    "a head's first part": (
        head,
        UnsupportedModelError,
        r"has a head \(cls.weight\), of which GGUF holds a part alone",
    ),
    "local ropes of unknown base": (
        lambda path: modernbert_file(path, {"rope.freq_base_swa": None}),
        CheckpointError,
        "rope.freq_base_swa is absent",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_files_do_not_say_is_refused(tmp_path: Path, case: str) -> None:
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        open_checkpoint(str(make(tmp_path / "w.gguf")))


def test_bitnet_with_sentencepiece_is_the_one_from_before_activations_were_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = seeded(hf.BitNetForCausalLM(hf.BitNetConfig(**{**SHARED, "vocab_size": 7, "tie_word_embeddings": True})))
    tokenizer = pieces("a", "b", model="llama")
    checkpoint = open_checkpoint(str(convert(tmp_path / "w.gguf", model, tokenizer)))
    assert checkpoint.config["hidden_act"] == "silu"


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_matrices_of_bitnet_come_back(tmp_path: Path, kind: str) -> None:
    """Their types have blocks of 256 numbers, with a scale in float16."""
    sizes = {**SHARED, "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 256}
    model = seeded(hf.BitNetForCausalLM(hf.BitNetConfig(**{**sizes, "tie_word_embeddings": True})))
    metadata = {"hidden_activation": "relu2", "tokenizer.ggml.eos_token_id": 2}
    up = np.random.default_rng(0).integers(-1, 2, (256, 256)).astype(np.float32) * np.float32(0.375)
    packed = {"blk.0.ffn_up.weight": (up, gguf.GGMLQuantizationType[kind])}
    path = convert(tmp_path / "w.gguf", model, byte_level(), metadata, packed)
    found = open_checkpoint(str(path)).tensors["model.layers.0.mlp.up_proj.weight"]
    np.testing.assert_array_equal(found.rows(0, 256), up)


def test_one_number_of_an_activation_is_that_of_all_layers(tmp_path: Path) -> None:
    path = convert(tmp_path / "w.gguf", build("apertus"), byte_level(), {"xielu.beta": 0.25})
    tensors = open_checkpoint(str(path)).tensors
    assert [float(tensors[f"model.layers.{i}.mlp.act_fn.beta"].rows(0, 1)[0]) for i in range(2)] == [0.25, 0.25]


def test_json_of_steps_is_what_sentence_transformers_writes(tmp_path: Path) -> None:
    tensors = {"dense_2.weight": random(96, 64)}
    files = open_checkpoint(str(gemma_file(tmp_path / "w.gguf", {}, tensors))).files
    assert [module["path"] for module in json.loads(files["modules.json"])] == [
        "",
        "1_Pooling",
        "2_Dense",
        "3_Normalize",
    ]
