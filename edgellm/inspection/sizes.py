"""Numbers of bytes, for people."""

from __future__ import annotations


def size(count: float) -> str:
    """`count` bytes as text, such as "126.2 MiB"."""
    for unit, limit in (("B", 2**10), ("KiB", 2**20), ("MiB", 2**30)):
        if count < limit:
            return f"{count * 2**10 / limit:.{0 if unit == 'B' else 1}f} {unit}"
    return f"{count / 2**30:.2f} GiB"
