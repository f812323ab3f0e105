"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# "error": edgellm, or the package that was asked about, does not run. "warning": it runs slower than it could, or may
# fail later. "note": good to know.
Severity = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of `edgellm doctor`. `fix`: what to do, "" where there is nothing to be done."""

    check: str
    severity: Severity
    message: str
    fix: str = ""
