"""Text from the user, and messages to the user."""

from __future__ import annotations

import sys

from edgellm.errors import InputError

STDIN = "-"


def read_text(argument: str) -> str:
    """The argument, or for "-" standard input as UTF-8 without its last line break. Raises InputError."""
    if argument != STDIN:
        return argument
    return decode(sys.stdin.buffer.read()).removesuffix("\n")


def decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02X} at position {error.start}"
        raise InputError(f"standard input is not UTF-8: {found}; convert it first, for example with iconv") from error


def one_line(message: str) -> str:
    """The lines of a message, joined. A line that announces the next ones ends with a colon."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    joined = "".join(line + (" " if line.endswith(":") else "; ") for line in lines)
    return joined.removesuffix("; ").strip()
