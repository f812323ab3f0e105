"""Where seeds go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fuzz.corpus import CORPUS, PARTS


def write_json(target: str, name: str, value: Any) -> None:
    write_input(target, name, json.dumps(value).encode())


def write_input(target: str, name: str, data: bytes) -> None:
    _write(CORPUS / target / name, data)


def write_part(name: str, data: bytes) -> None:
    _write(PARTS / name, data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
