"""What becomes of a source: encoded once, kept once for all its rows, cut where it is too long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgellm.engines.in_place.sources import SourceEncoder
from encoder_decoder_checks import REPRESENTATIVE, Load
from encoder_decoder_families import LONGEST, PAD, sources


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
    engine = model.new_engine()
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
