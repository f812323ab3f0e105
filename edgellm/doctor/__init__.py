"""What of this machine and its Python environment keeps edgellm from running, or from running fast, and what to do.

`facts` is what there is to know, as values; `machine`, `software` and `cuda` read it; `checks` judges it and
`package_checks` what a package needs of it, as pure functions.
"""

from __future__ import annotations

from edgellm.doctor.checks import CHECKS
from edgellm.doctor.facts import Facts
from edgellm.doctor.findings import Finding
from edgellm.doctor.machine import read_facts

__all__ = ["Facts", "Finding", "examine", "read_facts"]


def examine(facts: Facts) -> list[Finding]:
    """What each check says of `facts`, in the order in which a person should read it."""
    return [finding for check in CHECKS for finding in check(facts)]
