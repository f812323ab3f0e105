"""The table of situations: a module per subject, each with a list SITUATIONS, a line each where that is possible."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from making import Situation


def every() -> Iterator[Situation]:
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        yield from importlib.import_module(f"situations.{module}").SITUATIONS
