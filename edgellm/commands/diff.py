"""edgellm diff: how two packages differ."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from edgellm.commands.options import json_option
from edgellm.inspection.contents import CONTEXT, Inspection, inspect_package
from edgellm.inspection.difference import Difference, differences
from edgellm.inspection.footprint import size
from edgellm.loading import HASH_LIMIT, read_package
from edgellm.package.files import check_files

DIFFERENT = 1
SHOWN = 12  # lines of a section, unless all are asked for


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Print every difference, however many a section has.")
@click.option("--verify", is_flag=True, help="Hash all files first, also those above 64 MiB.")
@json_option
@click.pass_context
def diff(context: click.Context, a: Path, b: Path, show_all: bool, verify: bool, as_json: bool) -> None:
    """Show how the packages A and B differ.

    Manifest, provenance, graphs (inputs, outputs, operators), each matrix's format and size, the report's figures,
    configs, chat template and files. Ends with exit code 0 where they are the same, 1 where they differ, and above 1
    where they cannot be compared.
    """
    found = differences(_open(a, verify), _open(b, verify))
    if as_json:
        click.echo(json.dumps({"same": not found, "differences": [asdict(each) for each in found]}, indent=2))
    else:
        click.echo("\n".join(_lines(found, limit=None if show_all else SHOWN)) or "no difference")
    if found:
        context.exit(DIFFERENT)


def _open(path: Path, verify: bool) -> Inspection:
    package, manifest = read_package(path)
    check_files(package, manifest, hash_limit=None if verify else HASH_LIMIT)
    return inspect_package(package, manifest, min(CONTEXT, manifest.context_length))


def _lines(found: Sequence[Difference], limit: int | None) -> list[str]:
    lines = []
    for section, each in groupby(found, key=lambda difference: difference.section):
        group = list(each)
        inner = list(_matrices(group) if section == "matrix" and limit else _plain(group))
        hidden = 0 if limit is None else max(0, len(inner) - limit)
        lines += [section, *(f"  {line}" for line in inner[:limit])]
        lines += [f"  ... and {hidden} more (--all)"] if hidden else []
    return lines


def _plain(found: Sequence[Difference]) -> Iterator[str]:
    """Names that differ by a number, and in the same way, together."""
    groups: dict[tuple[str, str, str], list[Difference]] = {}
    for each in found:
        if each.section == "text" and each.a is not None and each.b is not None:
            yield f"{each.name}:"
            yield from (f"  {line}" for line in _changed_lines(each.a, each.b))
        else:
            place = re.sub(r"\d+", "*", each.name), _shown(each.a), _shown(each.b)
            groups.setdefault(place, []).append(each)
    for (pattern, before, after), group in groups.items():
        name = group[0].name if len(group) == 1 else f"{pattern} ({len(group)} of them)"
        yield f"{name}: {before} -> {after}"


def _matrices(found: Sequence[Difference]) -> Iterator[str]:
    """Those with the same change of format together."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for each in found:
        groups.setdefault((_format(each.a), _format(each.b)), []).append(each)
    for (before, after), group in groups.items():
        bytes_before, bytes_after = (sum((side or {}).get("bytes", 0) for side in sides) for sides in _sides(group))
        example = f" ({group[0].name})" if len(group) == 1 else ""
        count = f"{len(group)} {'matrix' if len(group) == 1 else 'matrices'}"
        yield f"{count}{example}: {before} -> {after}, {size(bytes_before)} -> {size(bytes_after)}"


def _sides(group: Sequence[Difference]) -> tuple[list[Any], list[Any]]:
    return [each.a for each in group], [each.b for each in group]


def _format(side: Any) -> str:
    return "none" if side is None else str(side["format"])


def _changed_lines(a: str, b: str) -> list[str]:
    lines = difflib.unified_diff(a.splitlines(), b.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return size(value["bytes"])
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
