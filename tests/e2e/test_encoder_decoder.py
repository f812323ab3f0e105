"""Encoder-decoder packages against transformers on the same weights."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers as hf
from click.testing import CliRunner
from onnxruntime import get_available_providers
from safetensors.numpy import load_file, save_file

import edgellm
import edgellm_export
from comparison import Expected, relative
from edgellm.cli import cli
from edgellm.decoding.decoder import Reading
from edgellm.engines.in_place.sources import SourceEncoder
from edgellm.package.report import GenerationReport
from edgellm_export.blocks.cross_attention import RelativePositions
from encoder_decoder_families import (
    BY_NAME,
    EOS,
    FAMILIES,
    LONGEST,
    PAD,
    hf_generate,
    make_model,
    reference_logits,
    save_checkpoint,
    sources,
)
from reference_models import reference_group_beam_search
from row_driver import Driven, Ended, Row, arrays, begin_and_end_empty, come_and_go, ending

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude
NAMES = [family.name for family in FAMILIES]
REPRESENTATIVE = ["t5", "marian"]

Reference = Callable[[str], Any]
Load = Callable[..., edgellm.EncoderDecoderModel]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return cache(lambda name: make_model(BY_NAME[name]))


@pytest.fixture(scope="module")
def checkpoint(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: save_checkpoint(reference(name), tmp_path_factory.mktemp("checkpoint") / name))


@pytest.fixture(scope="module")
def package(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def make(name: str, precision: Any = "fp32") -> Path:
        out = tmp_path_factory.mktemp("package") / f"{name}-{precision}"
        checks = {"verify_quality": False, "calibrate": False}
        return edgellm_export.export(checkpoint(name), out, precision=precision, **checks).path

    return make


@pytest.fixture(scope="module")
def load(package: Callable[..., Path]) -> Load:
    def opened(*which: str) -> edgellm.EncoderDecoderModel:
        model = edgellm.load(package(*which), threads=1)
        assert isinstance(model, edgellm.EncoderDecoderModel)
        return model

    return cache(opened)


def assert_same(found: Sequence[edgellm.Generation], expected: Sequence[Expected]) -> None:
    for generation, wanted in zip(found, expected, strict=True):
        assert [s.tokens for s in generation.sequences] == wanted.tokens
        if wanted.scores is not None:
            scores = [s.score for s in generation.sequences]
            assert scores == pytest.approx(wanted.scores, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str, reference: Reference, load: Load) -> None:
    for source, target in [(sources(19)[0], sources(30, seed=1)[0]), (sources(40)[0], sources(2, seed=2)[0])]:
        expected = reference_logits(reference(name), source, target)
        assert relative(load(name).logits(source, target), expected) < LOGITS_TOLERANCE


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


def start_of(name: str) -> int:
    return int(BY_NAME[name].config().decoder_start_token_id)


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


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sources each run of an encoder read."""
    found: list[int] = []
    run = SourceEncoder.run

    def counted(self: Any, sources: Any) -> Any:
        found.append(len(sources))
        return run(self, sources)

    monkeypatch.setattr(SourceEncoder, "run", counted)
    return found


def test_a_source_stays_encoded(encodings: list[int], load: Load) -> None:
    model, (source, other) = load("t5"), sources(20, 9)
    model.reset()
    greedy = model.generate(source, max_new_tokens=8)
    beams = model.generate(source, num_beams=4, max_new_tokens=8)
    list(model.stream(source, max_new_tokens=8))
    model.logits(source, [PAD, 5, 6])
    assert encodings == [1]
    model.generate(other, max_new_tokens=8)
    assert model.generate(source, max_new_tokens=8).tokens == greedy.tokens
    assert encodings == [1, 1, 1]
    model.reset()
    assert model.generate(source, num_beams=4, max_new_tokens=8).tokens == beams.tokens
    model.generate([source, other], max_new_tokens=8)
    model.generate([source, other], max_new_tokens=8)
    assert encodings == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_the_cross_cache_is_there_once_per_source(name: str, load: Load) -> None:
    """Whatever the beams; and sources that are done leave it."""
    model, rows = load(name), sources(20, 9)
    layout = model.manifest.model.cross_cache
    per_token = 2 * layout.num_layers * layout.num_heads * layout.head_dim * 4
    engine = model._new_engine()
    engine.prefill([np.array([PAD])] * 2, rows)
    assert engine.cross_cache_bytes == 2 * 20 * per_token
    engine.reorder(np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    before = engine.decode(np.arange(8) + 5).copy()
    assert engine.cross_cache_bytes == 2 * 20 * per_token
    engine.reorder(np.array([4, 5, 6]))
    assert engine.cross_cache_bytes == 20 * per_token
    engine.reorder(np.array([1, 0, 2, 2]))
    assert before.shape == (8, 131)
    assert engine.decode(np.array([1, 2, 3, 4])).shape == (4, 131)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_rows_of_unequal_numbers(name: str, reference: Reference, load: Load) -> None:
    """Three rows of one source, one of another, and a third source that is done: each as by itself."""
    model, rows = load(name), sources(20, 9, 14)
    engine = model._new_engine()
    engine.prefill([np.array([start_of(name)])] * 3, rows)
    engine.reorder(np.array([0, 0, 0, 1, 1, 2, 2, 2]))
    first = np.array([5, 6, 7, 8, 9, 10, 11, 12])
    engine.decode(first)
    engine.reorder(np.array([2, 0, 0, 6]))
    found = engine.decode(np.array([20, 21, 22, 23]))
    for got, row, tokens in zip(found, (0, 0, 0, 2), ((7, 20), (5, 21), (5, 22), (11, 23)), strict=True):
        expected = reference_logits(reference(name), rows[row], np.array([start_of(name), *tokens]))
        assert relative(got, expected[-1]) < LOGITS_TOLERANCE


def driven(name: str, reference: Reference, load: Load) -> Driven:
    """An engine, beside transformers' model on each row by itself."""

    def alone(row: Row) -> np.ndarray:
        return reference_logits(reference(name), np.array(row.source), np.array(row.tokens))[-1]

    return Driven(load(name)._new_engine(), alone, LOGITS_TOLERANCE, sources=True)


@pytest.mark.parametrize("name", NAMES)
def test_rows_come_and_go(name: str, reference: Reference, load: Load) -> None:
    """Targets of unlike lengths side by side, whose graphs count positions by the longest."""
    come_and_go(driven(name, reference, load), (1, 1), 1, 3, 1, 1)
    begin_and_end_empty(driven(name, reference, load), 1)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_rows_in_any_order(name: str, reference: Reference, load: Load) -> None:
    rows = driven(name, reference, load)
    rows.prefill(2, 2, 2)
    rows.reorder(2, 0, 1, 0)
    rows.insert(1)
    rows.decode(2)
    rows.reorder(4, 1, 3, 0)
    rows.decode(2)
    rows.drop(1)
    rows.reorder(1, 2, 0, 0)
    rows.decode(2)


@pytest.mark.parametrize("before", [0, 2])
def test_a_hook_that_ends_an_insert_leaves_the_others(before: int, reference: Reference, load: Load) -> None:
    rows = driven("t5", reference, load)
    if before:
        rows.prefill(*[2] * before)
        rows.decode()
    with pytest.raises(Ended):
        rows.engine.insert(*arrays(rows.row(1)), Reading(progress=ending))
    assert rows.engine.rows == before
    rows.insert(1)
    rows.decode(2)


def test_what_rows_that_came_late_cost(load: Load) -> None:
    """Each its own cache, and none when it is gone; a source that is known already is not encoded again."""
    model, (source, other) = load("t5"), sources(20, 9)
    layout, start = model.manifest.model.cross_cache, np.array([PAD])
    engine, seen = model._new_engine(), []
    engine.prefill([start], [source], Reading(headroom=10))
    alone = engine.cache_bytes, engine.cross_cache_bytes
    for late in (other, source):
        engine.insert(start, late, Reading(10, lambda *told: seen.append(told)))
    assert seen == [(9, 9), (20, 20)]
    assert engine.cache_bytes == 3 * alone[0]
    assert engine.cross_cache_bytes == 2 * alone[1] + 9 * layout.bytes_per_token()
    engine.drop([1, 2])
    assert (engine.cache_bytes, engine.cross_cache_bytes) == alone
    engine.drop([0])
    assert (engine.rows, engine.cache_bytes, engine.holds_one) == (0, 0, True)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_score(name: str, reference: Reference, load: Load) -> None:
    source, target = sources(16)[0], np.array([start_of(name), 7, 8, 9, EOS])
    expected = torch.tensor(reference_logits(reference(name), source, target)).log_softmax(-1)
    score = load(name).score(source, target)
    assert score.logprobs == pytest.approx([float(expected[i, t]) for i, t in enumerate(target[1:])], abs=2e-4)
    assert load(name).score("source", "target").tokens[0] == start_of(name)


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


# Of logits, root mean square over root mean square. Weights are random: real ones are easier.
PRECISIONS = {"fp16": 2e-3, "int8": 0.06, "int4": 0.75}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(name: str, precision: str, reference: Reference, load: Load) -> None:
    source, target = sources(29)[0], sources(24, seed=1)[0]
    expected = reference_logits(reference(name), source, target)
    found = load(name, precision).logits(source, target)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < PRECISIONS[precision]


@pytest.mark.parametrize("name", ["t5-gated", "marian"])
def test_cuda_packages_on_the_cpu(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Their graphs compute in float16; the comparison with the original runs them."""
    out = edgellm_export.export(checkpoint(name), tmp_path / "package", precision="fp16", target="cuda")
    assert isinstance(out.report, GenerationReport)
    assert out.report.quality.device == ("cuda" if "CUDAExecutionProvider" in get_available_providers() else "cpu")
    assert out.report.passed


@pytest.mark.parametrize("name", ["t5", "t5-gated", "bart-relu", "pegasus"])
def test_calibrated_export(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Formats chosen by measured error, channel scales where they are legal, a report that passes."""
    text = tmp_path / "text"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    out = edgellm_export.export(checkpoint(name), tmp_path / "package", precision="int8", calibration=text)
    report = out.report
    assert isinstance(report, GenerationReport)
    assert report.passed
    assert {matrix.scheme for matrix in report.matrices} <= {
        "int8 x int8 per row",
        "int8 x int8 per row, uneven",
        "8-bit blocks of 64",
        "8-bit blocks of 32",
    }
    layers = BY_NAME[name].config()
    count = getattr(layers, "num_decoder_layers", None) or layers.decoder_layers
    assert [layer.part for layer in report.layers] == ["encoder"] * 3 + ["decoder"] * count
    assert max(layer.error for layer in report.layers) < 0.05
    assert max(matrix.error for matrix in report.matrices) < 0.02


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_embedding_is_stored_once(precision: str, package: Callable[..., Path]) -> None:
    """The decoder's graph reads the encoder's file."""
    files = {path.name: path.read_bytes() for path in package("t5", precision).iterdir()}
    assert b"encoder_model.onnx.data" in files["decoder_model.onnx"]
    apart = package("marian-apart", precision) / "decoder_model.onnx"
    assert b"encoder_model.onnx.data" not in apart.read_bytes()


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


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_source_beyond_the_table(name: str, load: Load) -> None:
    """Its end is cut, but the end token stays; T5 has no table."""
    model, source = load(name), [*(3 + i % 100 for i in range(LONGEST + 20)), 2]
    table = model.manifest.model.source_length
    cut = source if table is None else [*source[: table - 1], 2]
    assert (table is None) == (name == "t5")
    options: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": []}
    expected = model.generate(cut, **options)
    found = model.generate(source, overflow="truncate", **options)
    assert found.tokens == expected.tokens
    assert (found.prompt_tokens, found.dropped_tokens) == (len(cut), len(source) - len(cut))
    pieces = list(model.stream(source, overflow="truncate", **options))
    assert tuple(token for piece in pieces for token in piece.tokens) == found.tokens
    assert sum(piece.dropped_tokens for piece in pieces) == found.dropped_tokens
    together = model.generate([source, [5, 2]], overflow="truncate", **options)
    assert [generation.dropped_tokens for generation in together] == [found.dropped_tokens, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: m.generate(list(range(3, 3 + LONGEST + 1))), edgellm.ContextOverflowError, "table of positions 48"),
        (lambda m: m.generate([]), edgellm.InputError, "the list of prompts is empty"),
        (lambda m: m.generate([5, 999]), edgellm.InputError, "token id 999"),
        (lambda m: m.generate([5], prompt_lookup=True), edgellm.OptionError, "text-generation"),
        (lambda m: m.generate([5], decoder_start_token_id="x"), edgellm.OptionError, "expected a token id"),
        (lambda m: m.generate([5], decoder_start_token_id=131), edgellm.InputError, "token id 131"),
        (lambda m: m.generate([5], decoder_input_ids=[9] * LONGEST), edgellm.ContextOverflowError, "49 tokens"),
        (lambda m: m.generate("x", src_lang="en_XX"), edgellm.OptionError, "nothing in the source names its language"),
        (lambda m: m.generate("x", tgt_lang="en_XX"), edgellm.OptionError, "has no language codes"),
        (lambda m: m.generate([5], max_length=1), edgellm.OptionError, "max_length is 1"),
        (lambda m: m.generate([5], overflow="shift"), edgellm.OptionError, "a source is read whole"),
        (lambda m: m.generate([5], overflow="truncate", overflow_keep=2), edgellm.OptionError, "cuts its end"),
        (lambda m: m.score([5], [2]), edgellm.InputError, "behind the decoder start token"),
    ],
)
def test_bad_input(make: Callable[[Any], Any], error: type[Exception], message: str, load: Load) -> None:
    with pytest.raises(error, match=message):
        make(load("bart"))


def test_t5_has_no_longest_source(load: Load, reference: Reference) -> None:
    rows = sources(300)
    assert_same(load("t5").generate(rows, max_new_tokens=5), hf_generate(reference("t5"), rows, max_new_tokens=5))


def test_targets_end_where_the_table_of_positions_does(load: Load) -> None:
    found = load("bart").generate(sources(5), max_new_tokens=500, eos_token_id=None)[0]
    assert len(found.tokens) == LONGEST - 1
    assert found.finish_reason == "length"


def test_relative_positions_are_those_of_transformers() -> None:
    bucket = hf.models.t5.modeling_t5.T5Attention._relative_position_bucket
    for buckets, longest in [(32, 128), (12, 20), (8, 64), (64, 1000)]:
        positions = RelativePositions(buckets, longest)
        distances = np.arange(-longest, longest + 1)
        both = bucket(torch.tensor(distances), True, buckets, longest).numpy()
        behind = bucket(torch.tensor(-distances[longest:]), False, buckets, longest).numpy()
        assert positions.bucket_both(distances).tolist() == both.tolist()
        assert positions.bucket_behind(distances[longest:]).tolist() == behind.tolist()
        far = torch.tensor([-10 * longest, 10 * longest])  # the ends stand for all that is beyond them
        assert bucket(far, True, buckets, longest).tolist() == [both[0], both[-1]]


def test_distances_beyond_the_last_bucket(reference: Reference, load: Load) -> None:
    source, target = sources(70)[0], sources(90, seed=1)[0]
    expected = reference_logits(reference("t5"), source, target)
    assert relative(load("t5").logits(source, target), expected) < LOGITS_TOLERANCE


LANGUAGES = ["en_XX", "ro_RO", "fr_XX"]


def with_languages(path: Path, *, first: bool) -> None:
    """A tokenizer as mBART (the language last) or mBART-50 (the language first) has it."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = {code: 120 + i for i, code in enumerate(LANGUAGES)}
    vocabulary = {t: i for t, i in tokenizer.get_vocab().items() if i not in ids.values()}
    tokenizer.model = tokenizers.models.BPE(vocab={**vocabulary, **ids}, merges=[])
    tokenizer.add_special_tokens(LANGUAGES)
    single = ["en_XX", "$A", "</s>"] if first else ["$A", "</s>", "en_XX"]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, special_tokens=[("en_XX", ids["en_XX"]), ("</s>", EOS)]
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


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.shared.weight", "model.shared.weight"),
        ("model.decoder.layers.1.encoder_attn.k_proj.bias", "encoder_attn.k_proj.bias"),
        ("model.encoder.layernorm_embedding.weight", "model.encoder.layernorm_embedding.weight"),
    ],
)
def test_missing_weights(missing: str, message: str, reference: Reference, tmp_path: Path) -> None:
    save_checkpoint(reference("bart"), tmp_path / "checkpoint")
    tensors = load_file(tmp_path / "checkpoint" / "model.safetensors")
    del tensors[missing]
    save_file(tensors, tmp_path / "checkpoint" / "model.safetensors")
    with pytest.raises(edgellm.EdgellmError, match=message):
        edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32")
    assert not (tmp_path / "out").exists()


def test_names_of_tied_embeddings(reference: Reference, load: Load, tmp_path: Path) -> None:
    """One of the names of a tied matrix, whichever it is, and names without their prefix."""
    source, target = sources(9)[0], sources(6, seed=1)[0]
    for name, old, new in [
        ("t5", "shared.weight", "encoder.embed_tokens.weight"),
        ("t5", "shared.weight", "lm_head.weight"),
        ("bart", "model.shared.weight", "model.decoder.embed_tokens.weight"),
    ]:
        path = tmp_path / f"{name}-{new}"
        save_checkpoint(reference(name), path / "checkpoint")
        tensors = load_file(path / "checkpoint" / "model.safetensors")
        tensors[new] = tensors.pop(old)
        save_file(tensors, path / "checkpoint" / "model.safetensors")
        out = edgellm_export.export(path / "checkpoint", path / "out", precision="fp32", verify_quality=False)
        model = edgellm.load(out.path, threads=1)
        assert isinstance(model, edgellm.EncoderDecoderModel)
        assert np.array_equal(model.logits(source, target), load(name).logits(source, target))


def test_a_table_of_positions_in_the_checkpoint_counts(reference: Reference, tmp_path: Path) -> None:
    """Even where it would follow from the config: transformers reads it too."""
    model = make_model(BY_NAME["pegasus"])
    with torch.no_grad():
        model.model.encoder.embed_positions.weight += 0.3 * torch.randn(LONGEST, 48)
        model.model.decoder.embed_positions.weight *= 0.5
    save_checkpoint(model, tmp_path / "checkpoint")
    out = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32", verify_quality=False)
    found = edgellm.load(out.path, threads=1)
    assert isinstance(found, edgellm.EncoderDecoderModel)
    source, target = sources(19)[0], sources(12, seed=1)[0]
    loaded = hf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint", attn_implementation="eager")
    expected = reference_logits(loaded, source, target)
    assert relative(found.logits(source, target), expected) < LOGITS_TOLERANCE
    assert relative(reference_logits(reference("pegasus"), source, target), expected) > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_cache": "int8"}, "float key/value cache only"),
        ({"task": "fill-mask"}, "is for text2text-generation, not for fill-mask"),
        ({"target": "cuda", "precision": "fp32"}, "no float32"),
    ],
)
def test_exports_that_cannot_be(
    options: dict[str, Any], message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(edgellm.EdgellmError, match=message):
        edgellm_export.export(checkpoint("t5"), tmp_path / "out", **options)


def test_heads_that_attention_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BY_NAME["bart"].config().to_dict() | {"d_model": 36}))
    save_file({f"{i}": np.zeros(1, np.float32) for i in range(9)}, tmp_path / "model.safetensors")
    with pytest.raises(edgellm.EdgellmError, match="multiples of 8"):
        edgellm_export.export(tmp_path, tmp_path / "out")


def test_the_wrong_task(load: Load) -> None:
    path = load("t5").info.path
    for arguments in (["chat", str(path), "hi"], ["generate", str(path), "hi"], ["bench", str(path)]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code != 0
        assert "is a package for text2text-generation" in result.output


def test_a_graph_of_another_package(load: Load, package: Callable[..., Path], tmp_path: Path) -> None:
    """The decoder of a model with other heads."""
    out = tmp_path / "package"
    shutil.copytree(package("t5"), out)
    manifest = json.loads((out / "edgellm.json").read_text())
    manifest["cross_cache"]["num_heads"] = 7
    (out / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(edgellm.PackageCorruptError, match="promises 7 heads"):
        edgellm.load(out)
    del manifest["graphs"]["encoder"]
    (out / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(edgellm.PackageCorruptError, match="needs the graphs encoder and decoder"):
        edgellm.load(out)
