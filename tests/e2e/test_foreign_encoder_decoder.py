"""Encoder-decoders that optimum exported: a cache that concatenates, a source for each row."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
from comparison import relative, trimmed
from edgellm_export.optimum.conversion import export_graphs
from optimum_models import ENCODER_DECODERS, VOCAB, make_model, save_checkpoint
from row_driver import Driven, begin_and_end_empty, come_and_go, step_by_step

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude
LENGTHS = (5, 23, 23, 11)
GRAPHS = {
    "merged": ("encoder_model", "decoder_model_merged"),
    "apart": ("encoder_model", "decoder_model", "decoder_with_past_model"),
}


@pytest.fixture(scope="session")
def original() -> Callable[[str], Any]:
    return cache(make_model)


@pytest.fixture(scope="session")
def checkpoint(original: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: save_checkpoint(original(name), tmp_path_factory.mktemp("checkpoint") / name))


@pytest.fixture(scope="session")
def load(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """By name, and how the decoder's graphs are laid out."""
    root = tmp_path_factory.mktemp("optimum")

    @cache
    def exported(name: str) -> Path:
        export_graphs(checkpoint(name), root / name, "text2text-generation")
        return root / name

    @cache
    def make(name: str, layout: str) -> edgellm.EncoderDecoderModel:
        path = root / f"{name}-{layout}"
        path.mkdir()
        for file in exported(name).iterdir():
            if file.suffix != ".onnx" or file.stem in GRAPHS[layout]:
                (path / file.name).write_bytes(file.read_bytes())
        return edgellm.load(path, threads=1)

    return make


def sources(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, length) for length in LENGTHS]


@torch.no_grad()
def expected_tokens(model: Any, source: np.ndarray, **options: Any) -> tuple[int, ...]:
    ids = torch.tensor(source[None])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist()
    return trimmed(out[1:], 2)


EACH = pytest.mark.parametrize("name", ENCODER_DECODERS)
LAYOUT = pytest.mark.parametrize("layout", GRAPHS)


@EACH
@LAYOUT
def test_logits(name: str, layout: str, original: Callable[[str], Any], load: Callable[..., Any]) -> None:
    model, target = load(name, layout), np.random.default_rng(1).integers(3, VOCAB, 17)
    target[0] = model.manifest.tokens.decoder_start
    for source in sources():
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor(source[None]), "decoder_input_ids": torch.tensor(target[None])}
            expected = original(name)(**inputs).logits[0].numpy()
        assert relative(model.logits(source, target), expected) < LOGITS_TOLERANCE


@EACH
@LAYOUT
@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"num_beams": 3, "early_stopping": True}], ids=str)
def test_tokens_of_batches(
    name: str, layout: str, options: dict[str, Any], original: Callable[[str], Any], load: Callable[..., Any]
) -> None:
    """Sources of different lengths in one batch: each gets what transformers gives it alone."""
    options = {"max_new_tokens": 20, "do_sample": False, **options}
    for got, source in zip(load(name, layout).generate(sources(), **options), sources(), strict=True):
        assert got.tokens == expected_tokens(original(name), source, **options)


@EACH
@LAYOUT
def test_rows_run_together(name: str, layout: str, load: Callable[..., Any]) -> None:
    """These graphs can do it; were they found unable to, the tests above would pass more slowly."""
    graphs = load(name, layout).new_engine.args[0]
    assert graphs.takes_batches
    assert graphs.takes_lengths


def test_streams_and_samples(load: Callable[..., Any]) -> None:
    model, source = load("mt5", "merged"), sources()[1]
    expected = model.generate(source, max_new_tokens=12)
    assert tuple(t for piece in model.stream(source, max_new_tokens=12) for t in piece.tokens) == expected.tokens
    drawn = model.generate(source, do_sample=True, num_return_sequences=3, seed=1, max_new_tokens=8)
    alone = model.generate([*sources(), source], do_sample=True, num_return_sequences=3, seed=1, max_new_tokens=8)[-1]
    assert [s.tokens for s in drawn.sequences] == [s.tokens for s in alone.sequences]


def test_what_a_source_costs(load: Callable[..., Any]) -> None:
    """Its keys and values are there once for each row, and for no more rows than there are."""
    engine = load("mt5", "merged").new_engine()
    engine.prefill([np.array([0])] * 2, sources()[1:3])
    engine.reorder(np.array([0, 0, 1]))
    engine.decode(np.array([5, 6, 7]))
    per_row = 23 * 2 * 2 * 48 * 4
    assert engine.cross_cache_bytes == 3 * per_row
    engine.reorder(np.array([2]))
    engine.decode(np.array([5]))
    assert engine.cross_cache_bytes == per_row


@EACH
@LAYOUT
def test_rows_come_and_go(name: str, layout: str, load: Callable[..., Any]) -> None:
    model = load(name, layout)

    def driven() -> Driven:
        return Driven(model.new_engine(), step_by_step(model.new_engine()), LOGITS_TOLERANCE, sources=True)

    come_and_go(driven(), (1, 1), 1, 3, 1, 1)
    begin_and_end_empty(driven(), 1)


@EACH
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_packages(
    name: str, precision: str, original: Callable[[str], Any], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    exported = edgellm_export.export(checkpoint(name), tmp_path / "out", precision=precision, via="optimum")
    assert exported.report.quality.kl_divergence < {"fp32": 1e-9, "fp16": 1e-4, "int8": 7e-3}[precision]
    model = edgellm.load(exported.path, threads=1)
    together = model.generate(sources(), max_new_tokens=12, logprobs=True)
    for got, source in zip(together, sources(), strict=True):
        alone = model.generate(source, max_new_tokens=12, logprobs=True)
        assert got.tokens == alone.tokens
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-4 if precision.startswith("fp") else 0.05)
        if precision == "fp32":
            assert got.tokens == expected_tokens(original(name), source, max_new_tokens=12, do_sample=False)
