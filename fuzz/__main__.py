"""`python -m fuzz`: runs atheris on every target, one process each, and prints what came of it.

`python -m fuzz TARGET` is one target with libFuzzer's own options behind it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Imports late: atheris must be there before anything of edgellm is."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        from fuzz.one_target import fuzz_one

        fuzz_one(sys.argv[1], sys.argv[2:])
    else:
        from fuzz.all_targets import fuzz_all

        sys.exit(fuzz_all(sys.argv[1:]))


if __name__ == "__main__":
    main()
