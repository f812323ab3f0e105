"""What the documentation shows is true: its Python runs, its help texts are current, its links lead on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgellm

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", [p for p in PAGES if PYTHON.search(p.read_text())], ids=lambda p: p.name)
def test_python_runs(page: Path, model: edgellm.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks of a page one after the other, on a tiny model; exports are shown, and tested elsewhere."""
    monkeypatch.setattr(edgellm, "load", lambda path: model)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in PYTHON.findall(page.read_text()):
        if "edgellm_export" not in block:
            exec(compile(block, page.name, "exec"), names)
    assert names["model"] is model


def test_help_texts_are_those_of_the_commands() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "help_pages.py", "--check"], check=True)


def test_the_tables_of_models_are_those_of_the_exporter() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "model_pages.py", "--check"], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "python-api.md").read_text()
    assert [name for name in edgellm.GenerationOptions.__dataclass_fields__ if f"`{name}`" not in text] == []
