"""Regular expressions out of a checkpoint's files, which may take for ever to match."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

SECONDS = 2  # of the processor's time, for all patterns and names of a file
PROGRAM = """
import json, re, resource, sys
seconds = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
patterns, names = json.load(sys.stdin)
for pattern in map(re.compile, patterns):
    for name in names:
        pattern.match(name), pattern.fullmatch(name)
"""


def end_in_time(patterns: Iterable[str], names: Iterable[str]) -> bool:
    """Whether all patterns, which compile, can be matched with all names: it is tried out, in a process that can be
    ended."""
    given = [*patterns], [*names]
    if not all(given):
        return True
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(SECONDS)]
    return subprocess.run(command, input=json.dumps(given).encode(), capture_output=True, check=False).returncode == 0
