"""Constraints on exported packages, beside transformers with the same tokens allowed (prefix_allowed_tokens_fn)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
import text_checkpoints
from edgellm.constraints import Constraints
from text_checkpoints import SENTENCES

CHOICES = ["London, near the Thames", "the capital of France", "in Zürich", "not at all", "the world"]
WITHOUT_SPACES: list[dict[str, Any]] = [  # which the decoders' vocabulary has not
    {"choices": ["London", "Zurich", "not-at-all", "nothing"]},
    {"regex": "(the|in|a)_(cap|per|lon)[a-z]{1,3}[0-9]{0,2}"},
    {"json_schema": {"x-guidance": {"item_separator": ","}, "type": "array", "items": {"enum": ["Paris", 12, None]}}},
]
WITH_SPACES: list[dict[str, Any]] = [
    {"choices": CHOICES},
    {"regex": "(the|in|a) (cap|per|lon)[a-z]{1,3} ?[0-9]{0,2}"},
]
SEARCHES: list[dict[str, Any]] = [{}, {"num_beams": 4, "num_return_sequences": 2}, {"repetition_penalty": 1.3}]


def allowed_tokens(
    model: Any, asked: dict[str, Any], start: int, eos: Sequence[int]
) -> Callable[[int, Any], list[int]]:
    """What transformers asks for at each step: worked out anew from the tokens so far, of which `start` are given."""
    options = edgellm.GenerationOptions.create(**asked)
    constraint = Constraints().of(options, model.tokenizer, model.manifest.vocab_size)
    assert constraint is not None

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        state = constraint.begin()
        for token in ids.tolist()[start:]:
            if token in eos:
                return [eos[0]]
            state.advance(token)
        found: list[int] = np.flatnonzero(state.allowed()).tolist()
        return [*found, *(eos if state.may_end else [])]

    return allowed


def assert_as_transformers(model: Any, torch_model: Any, ids: list[int], asked: dict[str, Any], search: Any) -> None:
    """`ids`: a prompt, or a source where the model has an encoder."""
    config = torch_model.config
    start = 1 if config.is_encoder_decoder else len(ids)
    eos = [config.eos_token_id] if isinstance(config.eos_token_id, int) else config.eos_token_id
    with torch.no_grad():
        expected = torch_model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=24,
            prefix_allowed_tokens_fn=allowed_tokens(model, asked, start, eos), do_sample=False, **search,
        )  # fmt: skip
    found = model.generate(ids, max_new_tokens=24, do_sample=False, **asked, **search)
    for sequence, row in zip(found.sequences, expected.tolist(), strict=True):
        tokens = row[start:]
        cut = next((i + 1 for i, token in enumerate(tokens) if token in eos), len(tokens))
        assert list(sequence.tokens) == tokens[:cut]
        assert sequence.complete or sequence.finish_reason == "length"


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beams", "penalty"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_decoders(name: str, search: dict[str, Any], load: Any, reference: Any) -> None:
    for asked in WITHOUT_SPACES:
        assert_as_transformers(load(name), reference(name), [7, 9, 30, 41], asked, search)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[edgellm.EncoderDecoderModel, Any]:
    """With pieces of sentencepiece's, and spaces that are dropped in front."""
    path = tmp_path_factory.mktemp("t5")
    checkpoint = text_checkpoints.t5(path / "checkpoint")
    edgellm_export.export(checkpoint.path, path / "package", precision="fp32", verify_quality=False, calibrate=False)
    return edgellm.load(path / "package", threads=1), checkpoint.model


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beams", "penalty"])
def test_an_encoder_decoder(t5: tuple[edgellm.EncoderDecoderModel, Any], search: dict[str, Any]) -> None:
    model, torch_model = t5
    for asked in WITH_SPACES:
        for text in SENTENCES[:3]:
            assert_as_transformers(model, torch_model, model.tokenizer.encode(text).tolist(), asked, search)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 2}])
def test_what_an_encoder_decoder_says(t5: tuple[edgellm.EncoderDecoderModel, Any], options: dict[str, Any]) -> None:
    model, _ = t5
    for found in model.generate(SENTENCES, choices=CHOICES, max_new_tokens=48, **options):
        assert found.text in CHOICES
        assert found.complete
    assert model.generate(SENTENCES[0], choices=CHOICES, max_new_tokens=48).timing.drafted_tokens == 0
    pipe = edgellm.pipeline("summarization", model)
    assert pipe(SENTENCES[0], choices=CHOICES, max_new_tokens=48)[0]["summary_text"] in CHOICES


def test_texts_are_not_cleaned_up(t5: tuple[edgellm.EncoderDecoderModel, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would change what was asked for."""
    model, _ = t5
    monkeypatch.setattr(model.tokenizer, "cleans_up", True)
    options: dict[str, Any] = {"choices": ["the capital , and", "the world ."], "max_new_tokens": 48}
    text = model.generate(SENTENCES[0], **options).text
    assert text in options["choices"]
    assert "".join(map(str, model.stream(SENTENCES[0], **options))) == text


def test_a_first_token_that_the_options_force(t5: tuple[edgellm.EncoderDecoderModel, Any]) -> None:
    """As BART's packages have it, and those of models with language codes."""
    model, _ = t5
    found = model.generate(SENTENCES[0], choices=CHOICES, max_new_tokens=48, forced_bos_token_id=1)
    assert (found.tokens[0], found.text in CHOICES) == (1, True)


def test_the_int8_package_says_what_is_asked_for(package: Callable[..., Path]) -> None:
    model = edgellm.load(package("llama", "int8"), threads=1)
    for seed in range(5):
        found = model.generate([5, 6], **WITHOUT_SPACES[0], do_sample=True, seed=seed)
        assert found.text in WITHOUT_SPACES[0]["choices"]
