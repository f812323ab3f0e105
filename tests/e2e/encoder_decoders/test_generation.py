"""Searches of encoder-decoder packages against transformers' on the same weights."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

import edgellm
import edgellm_export
from comparison import Expected
from encoder_decoder_checks import NAMES, REPRESENTATIVE, Load, Reference, assert_same, start_of
from encoder_decoder_families import EOS, LONGEST, PAD, hf_generate, save_checkpoint, sources
from reference_models import reference_group_beam_search


@pytest.mark.parametrize("name", NAMES)
def test_greedy_in_batches_of_different_lengths(name: str, reference: Reference, load: Load) -> None:
    rows = sources(19, 5, 33, 2)
    expected = hf_generate(reference(name), rows, max_new_tokens=30)
    assert_same(load(name).generate(rows, max_new_tokens=30), expected)
    assert load(name).generate(rows[1], max_new_tokens=30).tokens == expected[1].tokens[0]


BEAMS: list[dict[str, Any]] = [
    {"num_beams": 4},
    {"num_beams": 5, "early_stopping": True, "num_return_sequences": 5},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0, "num_return_sequences": 2},
    {"num_beams": 4, "length_penalty": -0.5, "num_return_sequences": 3},
    {"num_beams": 2, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "min_length": 6},
    # As Marian's checkpoints have it: the padding that targets begin with never comes.
    {"num_beams": 4, "bad_words_ids": [[5], [9], [60], [80], [81]], "renormalize_logits": True},
    {"num_beams": 4, "early_stopping": True, "forced_bos_token_id": 9, "forced_eos_token_id": EOS},
]


@pytest.mark.parametrize(
    ("num_beams", "options"),
    [
        (1, {"encoder_no_repeat_ngram_size": 1}),
        (3, {"encoder_no_repeat_ngram_size": 1}),
        (1, {"encoder_repetition_penalty": 0.3}),  # not with beams: transformers' class changes the first beam alone
    ],
    ids=str,
)
def test_options_about_the_source(num_beams: int, options: dict[str, Any], reference: Reference, load: Load) -> None:
    """Source by source: in transformers the padding of a batch counts as tokens of the source."""
    rows = [np.concatenate([np.arange(4, 90), row]) for row in sources(23, 7)]
    lengths = {"num_beams": num_beams, "max_new_tokens": 14, "min_new_tokens": 10}
    options = {**options, **lengths}
    expected = [hf_generate(reference("t5"), [row], **options)[0] for row in rows]
    plain = load("t5").generate(rows, **lengths)
    results = load("t5").generate(rows, **options)
    assert_same(results, expected)
    assert [r.tokens for r in results] != [r.tokens for r in plain]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", BEAMS, ids=str)
def test_beams_in_batches_of_different_lengths(
    name: str, options: dict[str, Any], reference: Reference, load: Load
) -> None:
    rows = sources(23, 7, 14)
    expected = hf_generate(reference(name), rows, max_new_tokens=14, **options)
    assert_same(load(name).generate(rows, max_new_tokens=14, **options), expected)


def test_searches_end_at_different_times(load: Load) -> None:
    """So that rows and sources do leave a batch before others in the tests above."""
    for name in NAMES:
        options = {"num_beams": 4, "early_stopping": True, "num_return_sequences": 4, "max_new_tokens": 14}
        found = load(name).generate(sources(23, 7, 14), **options)
        lengths = [len(s.tokens) for generation in found for s in generation.sequences]
        assert len(set(lengths)) > 1, name


OWN_OPTIONS: list[dict[str, Any]] = [
    {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
    {},
    {"do_sample": True, "seed": 5, "num_return_sequences": 2, "logprobs": True},
    {"repetition_penalty": 1.4, "encoder_no_repeat_ngram_size": 2, "max_new_tokens": 5},
    {"forced_bos_token_id": 9, "suppress_tokens": [60, 80]},
    {"num_beams": 2, "decoder_start_token_id": 7},
]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_sources_with_options_of_their_own_get_what_they_get_alone(name: str, load: Load) -> None:
    model, rows = load(name), sources(19, 5, 33, 2, 12, 8)
    together = model.generate(rows, options=OWN_OPTIONS, max_new_tokens=14)
    for found, source, own in zip(together, rows, OWN_OPTIONS, strict=True):
        alone = model.generate(source, **{"max_new_tokens": 14, **own})
        assert [s.tokens for s in found.sequences] == [s.tokens for s in alone.sequences]
        assert [s.logprobs is None for s in found.sequences] == [not own.get("logprobs")] * len(found.sequences)
        assert [s.score or 0 for s in found.sequences] == pytest.approx([s.score or 0 for s in alone.sequences])
    given = {"decoder_input_ids": [5, 6]}
    with pytest.raises(edgellm.OptionError, match="targets begin with 1 and with 3 tokens, expected as many of each"):
        model.generate(rows[:2], options=[{}, given])
    assert len(model.generate(rows[:2], options=[given, {"decoder_input_ids": [7, 8]}], max_new_tokens=3)) == 2


class Uncached:
    """A torch model and a source as the reference of group beam search drives them."""

    def __init__(self, model: Any, source: np.ndarray) -> None:
        self._model, self._source = model, torch.tensor(source[None])

    @torch.no_grad()
    def last_logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model(input_ids=self._source, decoder_input_ids=ids[None], use_cache=False).logits[0, -1]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_beam_groups(name: str, reference: Reference, load: Load) -> None:
    """Groups of one source end at different times: its rows are then fewer than another source's."""
    options = {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "diversity_penalty": 0.7}
    options |= {"early_stopping": True, "length_penalty": 1.0, "repetition_penalty": 1.2, "max_new_tokens": 14}
    rows = sources(21, 8)
    expected = [
        Expected(*reference_group_beam_search(Uncached(reference(name), row), [start_of(name)], (EOS,), PAD, options))
        for row in rows
    ]
    assert_same(load(name).generate(rows, **options), expected)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_given_beginnings(name: str, reference: Reference, load: Load) -> None:
    rows = sources(11, 24)
    beginning = [start_of(name), 40, 41, 42]
    expected = hf_generate(
        reference(name), rows, decoder_input_ids=torch.tensor([beginning, beginning]), max_new_tokens=9
    )
    assert_same(load(name).generate(rows, decoder_input_ids=beginning, max_new_tokens=9), expected)
    assert_same(load(name).generate(rows, decoder_input_ids=beginning[1:], max_new_tokens=9), expected)
    expected = hf_generate(reference(name), rows, decoder_start_token_id=17, num_beams=2, max_length=12)
    assert_same(load(name).generate(rows, decoder_start_token_id=17, num_beams=2, max_length=12), expected)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_sampling_does_not_depend_on_the_batch(name: str, load: Load) -> None:
    options = {"do_sample": True, "num_return_sequences": 3, "seed": 5, "max_new_tokens": 25, "top_k": 0}
    rows = sources(13, 30, 6)
    together = load(name).generate(rows, **options)
    assert [g.sequences for g in together] == [load(name).generate(row, **options).sequences for row in rows]
    assert len({s.tokens for generation in together for s in generation.sequences}) == 9


@pytest.mark.parametrize("name", REPRESENTATIVE)
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3}], ids=["greedy", "sampling"])
def test_streaming(name: str, options: dict[str, Any], load: Load) -> None:
    model = load(name)
    whole = model.generate("A source of letters.", max_new_tokens=20, logprobs=True, **options)
    pieces = list(model.stream("A source of letters.", max_new_tokens=20, logprobs=True, **options))
    assert tuple(t for piece in pieces for t in piece.tokens) == whole.tokens
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].finish_reason == whole.finish_reason
    with pytest.raises(edgellm.OptionError, match="cannot be streamed"):
        model.stream("A source.", num_beams=2)


def test_cancelling(load: Load) -> None:
    cancel = threading.Event()
    cancel.set()
    stopped = load("t5").generate(sources(9), cancel=cancel, max_new_tokens=20)[0]
    assert stopped.finish_reason == "cancelled"
    assert len(stopped.tokens) <= 1


def test_threads_side_by_side(load: Load) -> None:
    model, rows = load("marian"), sources(9, 21, 15, 30)
    alone = [model.generate(row, num_beams=2, max_new_tokens=15).tokens for row in rows]
    found: list[Any] = [None] * len(rows)

    def work(i: int) -> None:
        found[i] = model.generate(rows[i], num_beams=2, max_new_tokens=15).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_the_snippet_that_people_start_with(load: Load, reference: Reference) -> None:
    model = load("t5")
    text = "summarize: The tower is 324 metres tall."
    summary = model.generate(text, max_length=50, num_beams=5, early_stopping=True)
    assert model.tokenizer is not None
    expected = hf_generate(
        reference("t5"), [model.tokenizer.encode(text)], max_length=50, num_beams=5, early_stopping=True
    )
    assert_same([summary], expected)
    assert str(summary) == summary.text == model.tokenizer.decode(expected[0].tokens[0])


def test_targets_end_where_the_table_of_positions_does(load: Load) -> None:
    found = load("bart").generate(sources(5), max_new_tokens=500, eos_token_id=None)[0]
    assert len(found.tokens) == LONGEST - 1
    assert found.finish_reason == "length"


LANGUAGES = ["en_XX", "ro_RO", "fr_XX"]


def with_languages(path: Path, *, first: bool, written: str = "{}") -> None:
    """A tokenizer as mBART (the language last) or mBART-50 (the language first) has it. `written`: how codes are."""
    languages = [written.format(code) for code in LANGUAGES]
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = {code: 120 + i for i, code in enumerate(languages)}
    vocabulary = {t: i for t, i in tokenizer.get_vocab().items() if i not in ids.values()}
    tokenizer.model = tokenizers.models.BPE(vocab={**vocabulary, **ids}, merges=[])
    tokenizer.add_special_tokens(languages)
    single = [languages[0], "$A", "</s>"] if first else ["$A", "</s>", languages[0]]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, special_tokens=[(languages[0], ids[languages[0]]), ("</s>", EOS)]
    )
    tokenizer.save(str(path / "tokenizer.json"))


@pytest.mark.parametrize("first", [True, False], ids=["mbart-50", "mbart"])
def test_language_codes(first: bool, reference: Reference, tmp_path: Path) -> None:
    save_checkpoint(reference("mbart"), tmp_path / "checkpoint")
    with_languages(tmp_path / "checkpoint", first=first)
    out = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32", verify_quality=False)
    model = edgellm.load(out.path, threads=1)
    assert isinstance(model, edgellm.EncoderDecoderModel)
    assert model.tokenizer is not None
    body = model.tokenizer.encode("a text", add_special_tokens=False)
    for code, token in (("en_XX", 120), ("fr_XX", 122)):
        source = np.array([token, *body, EOS] if first else [*body, EOS, token])
        expected = hf_generate(reference("mbart"), [source], forced_bos_token_id=121, num_beams=2, max_new_tokens=8)
        options = {"num_beams": 2, "max_new_tokens": 8, "tgt_lang": "ro_RO"}
        found = model.generate("a text", **options, **({} if code == "en_XX" else {"src_lang": code}))
        assert_same([found], expected)
        assert found.tokens[0] == 121
    pieces = list(model.stream("a text", src_lang="ro_RO", tgt_lang="fr_XX", max_new_tokens=3))
    assert pieces[0].tokens == (122,)
    own: list[dict[str, Any]] = [{}, {"tgt_lang": "fr_XX", "src_lang": "ro_RO"}]
    both = model.generate(["a text"] * 2, options=own, tgt_lang="ro_RO", max_new_tokens=3)
    assert [found.tokens[0] for found in both] == [121, 122]
    assert both[1].tokens == tuple(piece.tokens[0] for piece in pieces)
    with pytest.raises(edgellm.OptionError, match=r"src_lang is 'ro_R', .*did you mean 'ro_RO'"):
        model.generate("a text", src_lang="ro_R")
    with pytest.raises(edgellm.OptionError, match="both say what to begin with"):
        model.generate("a text", tgt_lang="ro_RO", forced_bos_token_id=5)


def test_m2m100s_codes_are_said_without_their_underscores(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LANGUAGES", ["en", "ro", "fr"])
    save_checkpoint(reference("m2m_100"), tmp_path / "checkpoint")
    with_languages(tmp_path / "checkpoint", first=True, written="__{}__")
    out = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32", verify_quality=False)
    model = edgellm.load(out.path, threads=1)
    assert model.tokenizer is not None
    source = np.array([122, *model.tokenizer.encode("a text", add_special_tokens=False), EOS])
    expected = hf_generate(reference("m2m_100"), [source], forced_bos_token_id=121, max_new_tokens=8)
    assert_same([model.generate("a text", src_lang="fr", tgt_lang="ro", max_new_tokens=8)], expected)
    named = edgellm.pipeline("translation_fr_to_ro", model)
    assert named("a text", max_new_tokens=8, num_beams=1, return_tensors=True) == [
        {"translation_token_ids": list(expected[0].tokens[0])}
    ]
