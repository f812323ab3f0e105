"""How a checkpoint says to generate, and what of it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GenerationConfig

from edgellm.decoding.options import GenerationOptions
from edgellm.package.generation import KEYS, refused, settings_of

CONFIG = {"model_type": "bart", "num_beams": 4, "forced_eos_token_id": 2, "eos_token_id": 2, "d_model": 16}


def test_without_a_file_the_keys_of_config_json_count() -> None:
    assert settings_of(None, CONFIG) == {"num_beams": 4, "forced_eos_token_id": 2, "eos_token_id": 2}


def test_a_file_counts_alone() -> None:
    assert settings_of({"top_k": 3}, CONFIG) == {"top_k": 3}


def test_null_is_silence_in_config_json() -> None:
    assert settings_of(None, {**CONFIG, "num_beams": None}) == {"forced_eos_token_id": 2, "eos_token_id": 2}


def test_barts_older_spelling_forces_the_bos_token() -> None:
    found = settings_of(None, {"force_bos_token_to_be_generated": True, "bos_token_id": 5})
    assert found["forced_bos_token_id"] == 5


def test_every_setting_of_transformers_is_known() -> None:
    own = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"}
    assert own <= KEYS


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_scale": 1.5},
        {"sequence_bias": [[[5], 2.0]]},
        {"watermarking_config": {"bias": 2.0}},
        {"token_healing": True},
        {"constraints": [1]},
        {"force_words_ids": [[1]]},
        {"dola_layers": "high"},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"top_h": 0.4, "do_sample": True},
        {"cache_implementation": "quantized"},
        {"decoder_start_token_id": [1, 2]},
    ],
)
def test_what_edgellm_does_not_do_is_refused_by_name(settings: dict[str, Any]) -> None:
    (line,) = refused(settings)
    assert line.startswith(f"{next(iter(settings))} is ")


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": None},
        {"token_healing": False},
        {"penalty_alpha": 0.6, "do_sample": True},
        {"penalty_alpha": 0.6, "top_k": 1},
        {"penalty_alpha": 0.6, "num_beams": 2},
        {"top_h": 0.4},
        {"cache_implementation": "static"},
        {"use_cache": False, "low_memory": True, "num_assistant_tokens": 5},
        {"decoder_start_token_id": [1]},
    ],
)
def test_what_changes_no_token_is_not(settings: dict[str, Any]) -> None:
    assert not refused(settings)


@pytest.mark.parametrize(("eos", "expected"), [(-1, ()), ([-1, 2], (2,)), ([2, 500], (2,)), (500, ()), (2, (2,))])
def test_ends_that_no_token_has_are_no_ends(eos: Any, expected: tuple[int, ...]) -> None:
    options = GenerationOptions.create({"eos_token_id": eos}).within(100, {})
    assert options.eos_token_id == expected


def test_a_caller_who_names_such_an_end_hears_of_it() -> None:
    given = {"eos_token_id": 500}
    options = GenerationOptions.create({}, **given).within(100, given)
    with pytest.raises(ValueError, match="eos_token_id holds 500"):
        options.check_vocabulary(100)
