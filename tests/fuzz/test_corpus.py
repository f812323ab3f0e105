"""Every kept input, and damage to the valid ones: an error of edgellm's or none, soon, in little memory, inside the
directory. `make fuzz` does the same with a million inputs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import watch as limits
from fuzz.corpus import inputs_of
from fuzz.mutate import mutate_json
from fuzz.targets import TARGETS, Target
from fuzz.watch import Escape, Watch


@pytest.fixture(scope="module")  # no longer: counting slows everything, and other tests count for themselves
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    watch = Watch(tmp_path_factory.mktemp("fuzz"))
    yield watch
    watch.stop()


@pytest.fixture(scope="module", params=list(TARGETS))
def name(request: pytest.FixtureRequest, watch: Watch) -> str:
    name = str(request.param)
    for path in inputs_of(name):
        watch.warm_up(TARGETS[name], path.read_bytes())
    return name


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_kept_inputs(name: str, watch: Watch) -> None:
    for path in inputs_of(name):
        watch.run(TARGETS[name], path.read_bytes())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_inputs(name: str, watch: Watch) -> None:
    target, seeds = TARGETS[name], [path.read_bytes() for path in inputs_of(name)]

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), st.integers(0, 1 << 32), st.binary(max_size=12), st.integers(0, 1 << 16))
    def damaged(seed: bytes, number: int, piece: bytes, place: int) -> None:
        made = mutate_json(seed, 1 << 16, number) if target.is_json else None
        at = place % (len(seed) + 1)
        watch.run(target, seed[:at] + piece + seed[at + len(piece) :] if made is None else made)

    damaged()


def busy(root: Path) -> None:
    end = time.process_time() + 0.1
    while time.process_time() <= end:
        pass


def test_the_watch_sees_what_it_must(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each limit is passed once."""
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    for parse, what in (
        (lambda root: (root / "../../etc/hostname").resolve().read_bytes(), "open of"),
        (lambda root: (root / "made").mkdir(), "os.mkdir"),
        (lambda root: bytearray(1 << 23), "bytes of memory"),
        (busy, "s for an input"),
    ):
        with pytest.raises(Escape, match=what):
            watch.run(Target("bad", lambda data: {}, parse), b"")
