"""scikit-build-core; on a machine without a C compiler, with the one in the wheel of ziglang."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from scikit_build_core import build as backend
from scikit_build_core.build import *  # noqa: F403

COMPILERS = ("clang",) if os.name == "nt" else ("cc", "gcc", "clang")


def get_requires_for_build_wheel(settings: Any = None) -> list[str]:
    needed = list(backend.get_requires_for_build_wheel(settings))
    return needed if _has_compiler() else [*needed, "ziglang"]


def build_wheel(directory: str, settings: Any = None, metadata: Any = None) -> str:
    if not _has_compiler():
        os.environ["CC"] = f"{sys.executable} -m ziglang cc"
    return str(backend.build_wheel(directory, settings, metadata))


def _has_compiler() -> bool:
    return "CC" in os.environ or any(map(shutil.which, COMPILERS))
