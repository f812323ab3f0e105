"""Keeps the tables in docs/models.md, which are the exporter's own: writes them, or with --check reports that they
differ."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edgellm_export.architectures import FAMILIES
from edgellm_export.architectures.catalog import HOLDS, entries, through_optimum

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
BLOCK = re.compile(r"(?<=<!-- begin families -->\n).*(?=<!-- end families -->)", re.DOTALL)


def tables() -> Iterator[str]:
    natives = list(entries())
    for kind in FAMILIES:
        of_kind = [entry for entry in natives if entry.kind == kind]
        yield f"## {kind.capitalize()}s: {len(of_kind)} model types\n"
        yield f"All of them: {', '.join(name for name, kinds in HOLDS.items() if kind in kinds)}.\n"
        yield "| `model_type` | checkpoints | GGUF |\n|---|---|---|"
        for entry in of_kind:
            yield f"| `{entry.model_type}` | {entry.checkpoints} | {', '.join(entry.gguf)} |"
        yield ""
    yield f"## Through optimum: {len(through_optimum())} model types\n"
    yield ", ".join(f"`{name}`" for name in through_optimum()) + "\n"


def main(check: bool) -> int:
    before = PAGE.read_text(encoding="utf-8")
    after, blocks = BLOCK.subn(lambda _: "\n" + "\n".join(tables()), before)
    if blocks != 1:
        raise SystemExit(f"{PAGE} needs <!-- begin families --> and <!-- end families -->")
    if check and after != before:
        print(f"{PAGE.name} differs from the exporter's tables; run `python tools/model_pages.py`", file=sys.stderr)
        return 1
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
