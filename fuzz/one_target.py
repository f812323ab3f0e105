"""One target under atheris: coverage of edgellm's own code guides the damage."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def fuzz_one(name: str, options: Sequence[str]) -> None:
    """Does not return: libFuzzer ends the process. `options`: libFuzzer's own."""
    import atheris

    with atheris.instrument_imports(include=["edgellm", "edgellm_export"]):
        from fuzz.targets import TARGETS

    from fuzz.corpus import inputs_of
    from fuzz.watch import Watch, limit_native_memory

    target = TARGETS[name]
    shared = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", dir=shared) as root:
        watch = Watch(Path(root))
        for path in inputs_of(name):  # what is imported late is there before anything is measured
            watch.warm_up(target, path.read_bytes())
        limit_native_memory()
        atheris.Setup(
            [sys.argv[0], *options],
            lambda data: watch.run(target, data),
            custom_mutator=_json_mutator if target.is_json else None,
        )
        atheris.Fuzz()


def _json_mutator(data: bytes, size: int, seed: int) -> bytes:
    """One in eight as bytes, so that the reader of JSON gets its share."""
    import atheris

    from fuzz.mutate import mutate_json

    made = mutate_json(data, size, seed) if seed % 8 else None
    return bytes(atheris.Mutate(data, size)) if made is None else made
