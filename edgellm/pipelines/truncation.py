"""Hugging Face's ways to say whether and where to cut a text that is too long."""

from __future__ import annotations

from typing import Any, Literal

from edgellm.errors import OptionError
from edgellm.text.encodings import Truncation

TruncationChoice = bool | Literal["longest_first", "only_first", "only_second", "do_not_truncate"]


def truncation_of(choice: Any) -> Truncation | None:
    """How to cut; None is not at all. Raises OptionError."""
    if choice in (False, None, "do_not_truncate"):
        return None
    if choice is True:
        return "longest_first"
    if choice in ("longest_first", "only_first", "only_second"):
        found: Truncation = choice
        return found
    raise OptionError(
        f"truncation is {choice!r}, expected True, False, 'longest_first', 'only_first', 'only_second' or "
        "'do_not_truncate'"
    )
