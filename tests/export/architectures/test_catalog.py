"""The table of families that README, docs/models.md and `edgellm export --families` print."""

from __future__ import annotations

from click.testing import CliRunner

from edgellm.cli import cli
from edgellm_export.architectures import FAMILIES
from edgellm_export.architectures.catalog import BUT_FOR, CHECKPOINTS, GGUF, HOLDS, entries, through_optimum
from edgellm_export.architectures.whole import WHOLES
from edgellm_export.gguf.config import FAMILIES as GGUF_FAMILIES

NATIVE = {model_type for families in FAMILIES.values() for model_type in families} | set(WHOLES)


def test_each_family_is_named_once_with_its_checkpoints() -> None:
    assert sorted(entry.model_type for entry in entries()) == sorted(NATIVE)
    assert set(CHECKPOINTS) == NATIVE
    assert all("/" in name for name in CHECKPOINTS.values())


def test_each_architecture_of_gguf_is_named() -> None:
    assert set(GGUF) == set(GGUF_FAMILIES)
    assert {model_type for types in GGUF.values() for model_type in types} <= NATIVE


def test_what_holds_is_of_kinds() -> None:
    assert all(kinds <= set(FAMILIES) for kinds in HOLDS.values())
    assert set(BUT_FOR) <= set(HOLDS)
    assert {model_type for types in BUT_FOR.values() for model_type in types} <= NATIVE


def test_nothing_is_both_native_and_through_optimum() -> None:
    assert not NATIVE & set(through_optimum())


def test_the_command_lists_all() -> None:
    result = CliRunner().invoke(cli, ["export", "--families"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert {line.split()[1] for line in lines[: lines.index("")]} == NATIVE
    assert lines[-1] == ", ".join(through_optimum())
