from __future__ import annotations

from pathlib import Path

import pytest

import edgellm

TEXT = list(range(60, 100))


@pytest.fixture
def saved(model: edgellm.Model, tmp_path: Path) -> Path:
    with model.session() as session:
        session.prefill(TEXT)
        session.metadata["title"] = "numbers"
        session.save(tmp_path / "one.session")
    return tmp_path / "one.session"
