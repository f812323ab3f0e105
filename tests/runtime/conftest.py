from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edgellm
from tiny_package import TinyConfig, write_package

PackageMaker = Callable[[TinyConfig], Path]


@pytest.fixture(scope="session")
def make_package(tmp_path_factory: pytest.TempPathFactory) -> PackageMaker:
    """Packages are made once per configuration; tests that change one make a copy."""
    made: dict[str, Path] = {}

    def make(config: TinyConfig) -> Path:
        if repr(config) not in made:
            made[repr(config)] = write_package(tmp_path_factory.mktemp("packages") / "tiny", config)
        return made[repr(config)]

    return make


@pytest.fixture(scope="session")
def package(make_package: PackageMaker) -> Path:
    return make_package(TinyConfig())


@pytest.fixture(scope="session")
def model(package: Path) -> edgellm.Model:
    return edgellm.load(package, threads=1)
