"""Keeps the exporter's own tables of families in docs/models.md and README.md: writes them, or with --check reports
that they differ."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edgellm_export.architectures import FAMILIES
from edgellm_export.architectures.catalog import BUT_FOR, HOLDS, Entry, entries, through_optimum

ROOT = Path(__file__).parent.parent


def tables() -> Iterator[str]:
    """docs/models.md's."""
    natives = list(entries())
    for kind in FAMILIES:
        of_kind = [entry for entry in natives if entry.kind == kind]
        yield f"## {kind.capitalize()}{'' if kind == 'speech' else 's'}: {counted(len(of_kind))}\n"
        yield f"All of them: {'; '.join(held(name, of_kind) for name, kinds in HOLDS.items() if kind in kinds)}.\n"
        yield "| `model_type` | checkpoints | GGUF |\n|---|---|---|"
        for entry in of_kind:
            more = " (its text model)" if entry.has_more else ""
            yield f"| `{entry.model_type}` | {entry.checkpoints}{more} | {', '.join(entry.gguf)} |"
        yield ""
    yield f"## Through optimum: {len(through_optimum())} model types\n"
    yield ", ".join(f"`{name}`" for name in through_optimum()) + "\n"


def held(name: str, among: list[Entry]) -> str:
    """What holds of families, with those of them of which it does not."""
    but = [f"`{entry.model_type}`" for entry in among if entry.model_type in BUT_FOR.get(name, ())]
    return f"{name} (but {', '.join(but)})" if but else name


def counted(types: int) -> str:
    return "1 model type" if types == 1 else f"{types} model types"


def texts() -> Iterator[tuple[Path, str, str]]:
    """Pages, the names of places in them, and what stands there."""
    yield ROOT / "docs" / "models.md", "families", "\n\n" + "\n".join(tables())
    for kind in FAMILIES:
        names = [entry.model_type for entry in entries() if entry.kind == kind]
        yield ROOT / "README.md", kind, f"{counted(len(names))}: {', '.join(names)}"


def main(check: bool) -> int:
    stale = []
    for page, place, text in texts():
        begin, end = f"<!-- begin {place} -->", f"<!-- end {place} -->"
        before = page.read_text(encoding="utf-8")
        after, places = re.subn(f"{begin}.*?{end}", lambda _, made=begin + text + end: made, before, flags=re.DOTALL)
        if places != 1:
            raise SystemExit(f"{page} needs {begin} and {end} once")
        if after != before:
            stale.append(f"{page.name} ({place})")
            if not check:
                page.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"{', '.join(stale)} differ from the exporter's tables: `python tools/model_pages.py`", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
