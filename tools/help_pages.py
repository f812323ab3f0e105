"""Keeps the `--help` texts in docs/commands/*.md: writes them, or with --check reports pages that differ."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from click.testing import CliRunner

from edgellm.cli import cli

PAGES = Path(__file__).parent.parent / "docs" / "commands"
BLOCK = re.compile(r"(?<=<!-- help -->\n```\n).*?(?=```\n)", re.DOTALL)


def help_text(command: str) -> str:
    return CliRunner().invoke(cli, [command, "--help"], terminal_width=80).output


def main(check: bool) -> int:
    stale = []
    for command in sorted(cli.commands):
        page = PAGES / f"{command}.md"
        before = page.read_text(encoding="utf-8")
        wanted = help_text(command)
        after, blocks = BLOCK.subn(lambda _, wanted=wanted: wanted, before)
        if blocks != 1:
            raise SystemExit(f"{page} needs one block of help: <!-- help -->, then ``` and ```")
        if after != before:
            stale.append(page.name)
            if not check:
                page.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"{', '.join(stale)} differ from --help; run `python tools/help_pages.py`", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
