"""Regular expressions out of a checkpoint's files, which may take for ever to match."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable

SECONDS = 10  # for all patterns and names of a file
# What is matched in no time: few repeats, none of a group, of short names.
FEW_REPEATS, SHORT_NAME = 2, 256
REPEATS, REPEATED_GROUP = "*+?{", re.compile(r"\)[*+{]")
PROGRAM = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in map(re.compile, patterns):
    for name in names:
        pattern.match(name), pattern.fullmatch(name)
"""


def end_in_time(patterns: Iterable[str], names: Iterable[str]) -> bool:
    """Whether all patterns, which compile, can be matched with all names. Where their looks do not tell, it
    is tried out, in a process that can be ended."""
    tried, given = [*patterns], [*names]
    if all(len(name) <= SHORT_NAME for name in given):
        tried = [pattern for pattern in tried if not _is_plain(pattern)]
    if not (tried and given):
        return True
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    content = json.dumps([tried, given]).encode()
    try:
        return subprocess.run(command, input=content, capture_output=True, timeout=SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _is_plain(pattern: str) -> bool:
    return sum(map(pattern.count, REPEATS)) <= FEW_REPEATS and REPEATED_GROUP.search(pattern) is None
