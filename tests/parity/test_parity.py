"""Every situation, saved by both versions of transformers, means here what it means there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgellm_export
from edgellm.errors import EdgellmError
from edgellm_export.witness.comparison import compare
from edgellm_export.witness.process import Reader
from making import Situation
from situations import every

pytestmark = pytest.mark.parity

SITUATIONS = list(every())
NUMBERS = 2e-5  # relative: float32 in models of a few small layers
Place = Callable[[str], Path]


def cases() -> Iterator[tuple[Situation, str, str]]:
    """Each with the version that saves it and the one that reads it: a newer one reads what an older one saved."""
    for situation in SITUATIONS:
        for saved, read in (("4", "4"), ("4", "5"), ("5", "5")):
            if saved in situation.versions:
                yield situation, saved, read


CASES = list(cases())
NAMES = [f"{situation.name}-{saved}-{read}" for situation, saved, read in CASES]


def test_the_table_is_long_and_names_each_situation_once() -> None:
    names = [situation.name for situation in SITUATIONS]
    assert len(names) >= 150
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("situation", "saved", "read"), CASES, ids=NAMES)
def test_a_checkpoint_means_what_it_means_in_transformers(
    situation: Situation, saved: str, read: str, made: Place, reader: Callable[[str], Reader], tmp_path: Path
) -> None:
    source = made(saved) / situation.name
    failed = source / "failed"
    assert not failed.exists(), failed.read_text()
    adapters = [(str(source / name), weight) for name, weight in situation.adapters.items()]
    options: dict[str, Any] = {"precision": "fp32", "adapters": adapters, "verify_quality": False, **situation.options}
    if situation.refused is not None:
        with pytest.raises(EdgellmError, match=situation.refused):
            edgellm_export.export(source, tmp_path / "package", **options)
        return
    package = edgellm_export.export(source, tmp_path / "package", **options).path
    findings = compare(package, str(source), reader(read), adapters=adapters)
    known = situation.differs if read == "4" else {}
    wrong = [f"{check.name}: {check.line}" for check in findings.differing if check.name not in known]
    assert not wrong, "\n".join(wrong)
    errors = [check.error for check in findings.checks if check.error is not None and check.name not in known]
    assert errors or known
    assert max(errors, default=0) < NUMBERS
