"""adapter_config.json: ranks, scales and modules as PEFT finds them, and what is refused by name."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.adapters.config import AdapterConfig, parse_adapter_config

QUERY, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def parse(**keys: Any) -> AdapterConfig:
    return parse_adapter_config(
        {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **keys}, "a"
    )


def test_the_scale_is_alpha_over_the_rank() -> None:
    assert parse().scale_of(QUERY) == 2
    assert parse(use_rslora=True).scale_of(QUERY) == 8 / math.sqrt(4)
    assert parse(r=None, lora_alpha=None).scale_of(QUERY) == 1


@pytest.mark.parametrize("pattern", ["q_proj", "1.self_attn.q_proj", r"layers\.\d+\.self_attn\.[qk]_proj", "^" + QUERY])
def test_patterns_match_the_ends_of_names(pattern: str) -> None:
    config = parse(rank_pattern={pattern: 16}, alpha_pattern={"nothing": 1, pattern: 32})
    assert (config.rank_of(QUERY), config.scale_of(QUERY)) == (16, 2)
    assert (config.rank_of(DOWN), config.scale_of(DOWN)) == (4, 2)
    assert config.rank_of("model.layers.1.self_attn.freq_proj") == 4


@pytest.mark.parametrize(
    ("keys", "query", "down"),
    [
        ({"target_modules": ["q_proj", "down_proj"]}, True, True),
        ({"target_modules": ["proj"]}, False, False),
        ({"target_modules": [QUERY]}, True, False),
        ({"target_modules": r".*\.(q|k)_proj"}, True, False),
        ({"target_modules": "q_proj"}, False, False),
        ({"target_modules": r"(?i).*\.Q_PROJ"}, True, False),
        ({"target_modules": "all-linear"}, True, True),
        ({"target_modules": None}, True, True),
        ({"target_modules": "all-linear", "exclude_modules": ["q_proj"]}, False, True),
        ({"target_modules": "all-linear", "exclude_modules": r".*\.1\..*"}, False, True),
        ({"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 1}, True, False),
        ({"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]}, False, True),
        ({"target_modules": ["q_proj", "down_proj"], "layers_to_transform": []}, True, True),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, True, False),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks"]}, False, False),
    ],
)
def test_targets(keys: dict[str, Any], query: bool, down: bool) -> None:
    targets = parse(**keys).targets
    assert (targets.has(QUERY), targets.has(DOWN)) == (query, down)


def test_modules_to_save_are_ends_of_the_names_of_modules_and_of_what_they_are_in() -> None:
    config = parse(modules_to_save=["norm", "classifier"])
    assert config.is_saved("model.layers.0.input_layernorm.weight")
    assert config.is_saved("classifier.out_proj.weight")
    assert not config.is_saved("model.norms.weight")


def test_long_names_cost_no_memory() -> None:
    config, name = parse(modules_to_save=["norm"]), "a." * 10_000 + "weight"
    tracemalloc.start()
    assert not config.is_saved(name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("kind", ["IA3", "LOHA", "ADALORA", "VERA"])
def test_other_kinds_of_adapter_are_to_be_merged_by_peft(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"peft_type is {kind}.*merge_and_unload"):
        parse(peft_type=kind)


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "ADAPTION_PROMPT"])
def test_what_is_no_change_of_weights_cannot_be_merged(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"peft_type is {kind}, which no weights can be merged with"):
        parse(peft_type=kind)


def test_another_tools_file_is_none() -> None:
    with pytest.raises(UnsupportedModelError, match="has no peft_type"):
        parse_adapter_config({"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}, "a")


@pytest.mark.parametrize(
    "start", ["pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga", "unheard-of"]
)
def test_adapters_that_change_their_base_are_refused(start: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"init_lora_weights is .* changes the base's weights"):
        parse(init_lora_weights=start)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_other_beginnings_do_not_matter(start: object) -> None:
    assert parse(init_lora_weights=start) == parse()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alora_invocation_tokens", [1, 2]),
        ("arrow_config", {"top_k": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("monteclora_config", {"num_samples": 4}),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("use_bdlora", {"nblocks": 2}),
        ("use_qalora", True),
        ("a_key_of_tomorrow", 1),
    ],
)
def test_keys_that_make_something_else_of_an_adapter_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=f"a: {key} is "):
        parse(**{key: value})
    assert parse(**{key: None}) == parse()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"r": 0}, "r is 0, expected a whole number from 1"),
        ({"r": "8"}, "r is '8'"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much', expected a number"),
        ({"lora_alpha": math.nan}, "lora_alpha is nan"),
        ({"rank_pattern": {"q_proj": -1}}, "rank_pattern is {'q_proj': -1}, expected whole numbers from 1"),
        ({"rank_pattern": {"(": 4}}, r"rank_pattern has '\(', which is not a regular expression"),
        ({"rank_pattern": {r"(a)\2": 1}}, "rank_pattern has .* not a regular expression"),
        ({"alpha_pattern": {"a)(b": 1}}, "alpha_pattern has .* not a regular expression"),
        ({"target_modules": "a)(b"}, "target_modules has .* not a regular expression"),
        ({"exclude_modules": r"(a)\2"}, "exclude_modules has .* not a regular expression"),
        ({"layers_pattern": r"(a)\2"}, "layers_pattern has .* not a regular expression"),
        ({"layers_pattern": "a)|(b"}, "layers_pattern has .* not a regular expression"),
        ({"alpha_pattern": ["q_proj"]}, r"alpha_pattern is \['q_proj'\], expected numbers"),
        ({"target_modules": "("}, r"target_modules has '\(', which is not a regular expression"),
        ({"target_modules": [1]}, r"target_modules is \[1\], expected names of modules"),
        ({"exclude_modules": {}}, "exclude_modules is {}, expected names"),
        ({"layers_to_transform": [-1]}, r"layers_to_transform is \[-1\], expected whole numbers from 0"),
        ({"modules_to_save": 3}, "modules_to_save is 3"),
        ({"trainable_token_indices": {"embed_tokens": ["a"]}}, r"trainable_token_indices is \['a'\]"),
        ({"use_dora": "yes"}, "use_dora is 'yes', expected true or false"),
        ({"task_type": 5}, "task_type is 5, expected text"),
    ],
)
def test_wrong_values_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse(**keys)


def test_all_wrong_values_come_in_one_error() -> None:
    with pytest.raises(CheckpointError, match=r"r is 0.*; lora_alpha is.*; use_rslora is 1"):
        parse(r=0, lora_alpha="x", use_rslora=1)
