"""Checkpoints and packages are made once per run and shared."""

from __future__ import annotations

import pydoc_data.topics
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import edgellm
import edgellm_export
from edgellm.commands import signals
from edgellm_export.calibration.texts import CALIBRATION_TOPICS, EVALUATION_TOPICS
from families import BY_NAME, make_model, save_checkpoint


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """The torch model of a family by name."""
    return cache(lambda name: make_model(BY_NAME[name]))


@pytest.fixture(scope="session")
def checkpoint(reference: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint directory of a family by name."""
    return cache(lambda name: save_checkpoint(reference(name), tmp_path_factory.mktemp("checkpoint") / name))


@pytest.fixture(scope="session")
def package(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The package directory of a family by name, precision and target; its weights are rounded as they are."""

    @cache
    def make(name: str, precision: str = "fp32", target: str = "cpu") -> Path:
        out = tmp_path_factory.mktemp("package") / f"{name}-{precision}-{target}"
        return edgellm_export.export(
            checkpoint(name),
            out,
            precision=precision,
            target=target,
            verify_quality=False,  # type: ignore[arg-type]
            calibrate=False,
        ).path

    return make


@pytest.fixture(scope="session")
def load(package: Callable[..., Path]) -> Callable[..., edgellm.Model]:
    """A loaded model by family name, precision and target, on the CPU provider."""
    return cache(lambda *which: edgellm.load(package(*which), device="cpu", threads=1))


@pytest.fixture(scope="session")
def smollm2_export(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The verified export of SmolLM2-135M by precision, made once."""
    out = tmp_path_factory.mktemp("smollm2")
    return cache(lambda precision: edgellm_export.export(smollm2_gguf, out / precision, precision=precision))


@pytest.fixture(scope="session")
def smollm2_package(smollm2_export: Callable[[str], Any]) -> Callable[[str], Path]:
    return lambda precision: smollm2_export(precision).path


@pytest.fixture(scope="session")
def held_out() -> list[str]:
    """English texts that no export is calibrated on or judged by."""
    topics = ["objects", "naming", "imports", "operator-summary", "sequence-types", "customization"]
    assert not {*topics} & {*EVALUATION_TOPICS, *CALIBRATION_TOPICS}
    texts = [pydoc_data.topics.topics.get(topic, "") for topic in topics]
    licences = Path("/usr/share/common-licenses")  # Debian
    files = [path for name in ("Apache-2.0", "Artistic", "MPL-2.0") if (path := licences / name).is_file()]
    return [text for text in [*texts, *(path.read_text() for path in files)] if len(text) > 3000]


@pytest.fixture
def installed_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handlers of the `edgellm` program, in this process."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    monkeypatch.setattr(signals, "_received", [])
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
