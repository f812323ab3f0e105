"""What the files of a sentence encoder say: how a text becomes one vector, or why edgellm does not make it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from edgellm.errors import CheckpointError, EdgellmError, OptionError, UnsupportedModelError
from edgellm.package.layouts import Embedding
from edgellm.package.sentence import SentenceEncoder, is_sentence_encoder, module_paths, sentence_encoder
from edgellm.package.sentence_steps import DenseStep

MODULES = ("Transformer", "Pooling")
FLAGS = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
DENSE = {"in_features": 8, "out_features": 4, "bias": False, "activation_function": "torch.nn.modules.activation.Tanh"}


def modules(*kinds: str) -> list[dict[str, Any]]:
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]


def files(**changes: Any) -> dict[str, bytes]:
    """Keys: the names of files, without ".json"; None: no such file."""
    sentence = {"max_seq_length": 20}
    found = {"modules": modules(*MODULES), "1_Pooling/config": FLAGS, "sentence_bert_config": sentence, **changes}
    return {f"{name}.json": json.dumps(content).encode() for name, content in found.items() if content is not None}


def read(**changes: Any) -> SentenceEncoder:
    found = sentence_encoder(files(**changes), 64, 8)
    assert found is not None
    return found


def test_a_directory_without_modules_is_no_sentence_encoder() -> None:
    assert sentence_encoder(files(modules=None), 64, 8) is None
    assert sentence_encoder(files(config_sentence_transformers={"model_type": "CrossEncoder"}), 64, 8) is None
    assert is_sentence_encoder(files(config_sentence_transformers={"model_type": "SentenceTransformer"}))


LIMITS: dict[str, tuple[Any, Any, int]] = {
    "the module's": ({"max_seq_length": 20}, {"model_max_length": 30}, 20),
    "the module's, more than the model has": ({"max_seq_length": 512}, {"model_max_length": 30}, 64),
    "null in the module": ({"max_seq_length": None}, {"model_max_length": 30}, 30),
    "absent in the module": ({}, {"model_max_length": 30}, 30),
    "no config of the module": (None, {"model_max_length": 30}, 30),
    "the tokenizer's, none": ({}, {"model_max_length": 1000000000000000019884624838656}, 64),
    "the tokenizer's by its older name": ({}, {"max_len": 12}, 12),
    "nobody's": ({}, {}, 64),
    "no config of the tokenizer": ({}, None, 64),
    "the module's arguments for the tokenizer": (
        {"max_seq_length": 20, "tokenizer_args": {"model_max_length": 11}}, {"model_max_length": 30}, 11,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_the_longest_text_is_what_sentence_transformers_cuts_at(name: str) -> None:
    sentence, tokenizer, wanted = LIMITS[name]
    assert read(sentence_bert_config=sentence, tokenizer_config=tokenizer).embedding.max_tokens == wanted


POOLINGS: dict[str, tuple[dict[str, Any], str]] = {
    "flags": (FLAGS, "mean"),
    "flags, all false": ({"word_embedding_dimension": 8, "pooling_mode_cls_token": False}, "mean"),
    "flags beside a name": ({**FLAGS, "pooling_mode": "cls"}, "cls"),
    "nothing": ({}, "mean"),
    "a name": ({"embedding_dimension": 8, "pooling_mode": "max", "include_prompt": True}, "max"),
    "a list of one": ({"embedding_dimension": 8, "pooling_mode": ["cls"]}, "cls"),
    "prompts left out, where there are none": ({**FLAGS, "include_prompt": False}, "mean"),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_both_spellings_of_pooling(name: str) -> None:
    config, wanted = POOLINGS[name]
    assert read(**{"1_Pooling/config": config}).embedding.pooling == wanted


def test_several_poolings_stand_in_their_order() -> None:
    found = read(**{"1_Pooling/config": {"pooling_mode": ["lasttoken", "mean"]}}).embedding
    assert found.poolings == ("lasttoken", "mean")
    flags = {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}
    assert read(**{"1_Pooling/config": flags}).embedding.poolings == ("cls", "max")


def test_steps_behind_the_pooling() -> None:
    found = read(modules=modules(*MODULES, "Dense", "Dropout", "Normalize"), **{"2_Dense/config": DENSE})
    assert found.dense == (DenseStep("2_Dense", 8, 4, bias=False, activation="Tanh"),)
    assert found.embedding.normalize
    bare = {"in_features": 8, "out_features": 4}
    assert read(modules=modules(*MODULES, "Dense"), **{"2_Dense/config": bare}).dense == (
        DenseStep("2_Dense", 8, 4, bias=True, activation="Tanh"),
    )


def test_paths_of_any_name() -> None:
    entries = modules(*MODULES)
    entries[0]["path"], entries[1]["path"] = ".", "a/pooling/"
    assert read(modules=entries, **{"a/pooling/config": {"pooling_mode": "cls"}}).embedding.pooling == "cls"
    assert module_paths(json.dumps(entries).encode()) == ["a/pooling"]


PROMPTS = {"prompts": {"query": "query: ", "empty": None}, "default_prompt_name": "query"}


def test_prompts_stand_before_texts() -> None:
    found = read(config_sentence_transformers=PROMPTS).embedding
    assert found.before(None, None) == "query: "
    assert found.before("other: ", None) == "other: "
    assert found.before("", None) == found.before(None, "empty") == found.before(None, "document") == ""
    with pytest.raises(OptionError, match="no prompt 'qery'; did you mean 'query'"):
        found.before(None, "qery")
    with pytest.raises(OptionError, match="leave out one"):
        found.before("a", "query")
    assert Embedding("mean", normalize=True, max_tokens=8).before(None, None) == ""


def with_(name: str, **config: Any) -> dict[str, Any]:
    return {name: config}


REFUSED: dict[str, tuple[dict[str, Any], type[EdgellmError], str]] = {
    "a step that edgellm lacks": (
        {"modules": modules(*MODULES, "WeightedLayerPooling")},
        UnsupportedModelError, "has a step WeightedLayerPooling",
    ),
    "a router": ({"modules": modules("Router", "Pooling")}, UnsupportedModelError, "has a step Router"),
    "another order": (
        {"modules": modules("Pooling", "Transformer")},
        UnsupportedModelError, "has the steps Pooling, Transformer",
    ),
    "unit length in the middle": (
        {"modules": modules(*MODULES, "Normalize", "Dense")},
        UnsupportedModelError, "has the steps",
    ),
    "a step of its own": (
        {"modules": [{"path": "", "type": "custom_st.Transformer"}]},
        UnsupportedModelError, "custom_st.Transformer, code that comes with",
    ),
    "a model elsewhere": (
        {"modules": [{**modules("Transformer")[0], "path": "0_Transformer"}, modules(*MODULES)[1]]},
        UnsupportedModelError, "lies in 0_Transformer",
    ),
    "a path outside": (
        {"modules": [{**modules("Transformer")[0], "path": "../x"}]},
        CheckpointError, "'../x' is not inside",
    ),
    "modules that are none": ({"modules": [7]}, CheckpointError, "is not a list of modules"),
    "no pooling config": ({"1_Pooling/config": None}, CheckpointError, "lacks 1_Pooling/config.json"),
    "another pooling": (
        with_("1_Pooling/config", pooling_mode=["mean", "mode"]),
        UnsupportedModelError, "does not build mode",
    ),
    "another pooling, newer spelling": (
        with_("1_Pooling/config", pooling_mode="median"),
        UnsupportedModelError, "does not build median",
    ),
    "a flag that nobody knows": (
        with_("1_Pooling/config", pooling_mode_median=True),
        UnsupportedModelError, "has pooling_mode_median",
    ),
    "another dimension": (with_("1_Pooling/config", word_embedding_dimension=7), CheckpointError, "the dimension is 7"),
    "prompts left out of the pooling": (
        {"1_Pooling/config": {"include_prompt": False}, "config_sentence_transformers": PROMPTS},
        UnsupportedModelError, "include_prompt is false",
    ),
    "a dense layer with a bypass": (
        {"modules": modules(*MODULES, "Dense"), "2_Dense/config": {**DENSE, "use_residual": True}},
        UnsupportedModelError, "use_residual",
    ),
    "a dense layer of tokens": (
        {"modules": modules(*MODULES, "Dense"), "2_Dense/config": {**DENSE, "module_input_name": "token_embeddings"}},
        UnsupportedModelError, "module_input_name is 'token_embeddings'",
    ),
    "another activation": (
        {"modules": modules(*MODULES, "Dense"), "2_Dense/config": {**DENSE,
         "activation_function": "torch.nn.modules.activation.SiLU"}},
        UnsupportedModelError, "does not build torch.nn.modules.activation.SiLU",
    ),
    "an activation that is no name": (
        {"modules": modules(*MODULES, "Dense"), "2_Dense/config": {**DENSE, "activation_function": ["Tanh"]}},
        CheckpointError, "activation_function is ['Tanh'], expected the name of a class",
    ),
    "no activation": (
        {"modules": modules(*MODULES, "Dense"), "2_Dense/config": {**DENSE, "activation_function": None}},
        CheckpointError, "activation_function is None, expected the name of a class",
    ),
    "a limit that is not a number": (
        {"sentence_bert_config": {}, "tokenizer_config": {"model_max_length": float("nan")}},
        CheckpointError, "model_max_length is nan, expected a number from 1",
    ),
    "a dense layer without a config": (
        {"modules": modules(*MODULES, "Dense")},
        CheckpointError, "lacks 2_Dense/config.json",
    ),
    "unit length of tokens": (
        {"modules": modules(*MODULES, "Normalize"), "2_Normalize/config": {"module_input_name": "token_embeddings"}},
        UnsupportedModelError, "module_input_name is 'token_embeddings'",
    ),
    "a length that is none": (
        with_("sentence_bert_config", max_seq_length="long"),
        CheckpointError, "max_seq_length is 'long'",
    ),
    "another task": (
        with_("sentence_bert_config", transformer_task="fill-mask"),
        UnsupportedModelError, "transformer_task is 'fill-mask'",
    ),
    "chats": (
        with_("sentence_bert_config", modality_config={"message": {}}),
        UnsupportedModelError, "modality_config is",
    ),
    "lengths by kind of text": (
        with_("sentence_bert_config", query_length=32),
        UnsupportedModelError, "query_length is 32",
    ),
    "settings of the tokenizer": (
        with_("sentence_bert_config", processing_kwargs={"text": {"padding": "max_length"}}),
        UnsupportedModelError, "processing_kwargs is",
    ),
    "arguments of the model": (
        with_("sentence_bert_config", model_args={"torch_dtype": "float16", "num_hidden_layers": 2}),
        UnsupportedModelError, "model_kwargs sets num_hidden_layers",
    ),
    "another kind of model": (
        with_("config_sentence_transformers", model_type="SparseEncoder"),
        UnsupportedModelError, "model_type is 'SparseEncoder'",
    ),
    "a default prompt that is not there": (
        with_("config_sentence_transformers", default_prompt_name="qery"),
        CheckpointError, "default_prompt_name is 'qery'",
    ),
    "prompts that are no texts": (
        with_("config_sentence_transformers", prompts={"query": 7}),
        CheckpointError, "prompts are not texts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_vector_is_refused_by_name(name: str) -> None:
    changes, error, words = REFUSED[name]
    with pytest.raises(error, match=re.escape(words)) as caught:
        read(**changes)
    assert type(caught.value) is error
