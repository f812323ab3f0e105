"""English text that every Python carries, for a first look at a package: the language reference's topics.

They are those that an export is judged by; calibration has others. The text follows the version of Python: numbers to
compare between machines want a file.
"""

from __future__ import annotations

from edgellm.errors import InputError

TOPICS = ("typesmapping", "specialnames", "exceptions", "execmodel", "formatstrings", "types", "class", "try")
NAME = "built-in English text"


def builtin_text() -> list[str]:
    """Raises InputError where this Python was installed without it."""
    try:
        import pydoc_data.topics
    except ImportError as error:
        raise InputError("this Python lacks its documentation, the built-in text; give a file with --data") from error
    return [pydoc_data.topics.topics[topic] for topic in TOPICS if topic in pydoc_data.topics.topics]
