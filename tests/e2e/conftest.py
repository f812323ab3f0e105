"""Checkpoints and packages are made once per run and shared."""

from __future__ import annotations

import pydoc_data.topics
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import edgellm
import edgellm_export
import encoder_decoder_families
import encoder_families
from edgellm.commands import signals
from edgellm_export.calibration.texts import CALIBRATION_TOPICS, EVALUATION_TOPICS
from families import BY_NAME, make_model, save_checkpoint

Shared = Callable[[str, Callable[[Path], Any]], Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """The torch model of a family by name."""
    return cache(lambda name: make_model(BY_NAME[name]))


@pytest.fixture(scope="session")
def checkpoint(reference: Callable[[str], Any], shared: Shared) -> Callable[[str], Path]:
    """The checkpoint directory of a family by name."""
    return lambda name: shared(f"checkpoints/{name}", lambda path: save_checkpoint(reference(name), path))


@pytest.fixture(scope="session")
def tiny(checkpoint: Callable[[str], Path], shared: Shared) -> Callable[[str], Path]:
    """A checkpoint directory by kind of model: decoder, encoder, encoder-decoder."""

    made: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
        "encoder": ("tiny-bert", encoder_families, ("bert", "feature-extraction")),
        "encoder-decoder": ("tiny-t5", encoder_decoder_families, (encoder_decoder_families.BY_NAME["t5"],)),
    }

    def make(kind: str) -> Path:
        if kind == "decoder":
            return checkpoint("llama")
        name, module, arguments = made[kind]
        return shared(f"checkpoints/{name}", lambda path: module.save_checkpoint(module.make_model(*arguments), path))

    return make


@pytest.fixture(scope="session")
def package(checkpoint: Callable[[str], Path], shared: Shared) -> Callable[..., Path]:
    """The package directory of a family by name, precision and target; its weights are rounded as they are."""

    def make(name: str, precision: Any = "fp32", target: str = "cpu") -> Path:
        options = {"target": target, "verify_quality": False, "calibrate": False}
        return shared(
            f"packages/{name}-{precision}-{target}",
            lambda path: edgellm_export.export(checkpoint(name), path, precision=precision, **options),
        )

    return make


@pytest.fixture(scope="session")
def package_int8(checkpoint: Callable[[str], Path], shared: Shared) -> Callable[[str], Path]:
    """The float32 package of a family with an int8 cache."""
    options: dict[str, Any] = {"precision": "fp32", "kv_cache": "int8", "verify_quality": False}
    return lambda name: shared(
        f"packages/{name}-kv-int8", lambda path: edgellm_export.export(checkpoint(name), path, **options)
    )


@pytest.fixture(scope="session")
def load(package: Callable[..., Path]) -> Callable[..., edgellm.Model]:
    """A loaded model by family name, precision and target, on the CPU provider."""
    return cache(lambda *which: edgellm.load(package(*which), device="cpu", threads=1))


@pytest.fixture(scope="session")
def smollm2_package(smollm2_gguf: Path, shared: Shared) -> Callable[[str], Path]:
    """The package of SmolLM2-135M by precision, which its export has compared with the original."""

    def make(precision: Any) -> Path:
        return shared(
            f"smollm2-{precision}", lambda path: edgellm_export.export(smollm2_gguf, path, precision=precision)
        )

    return make


@pytest.fixture(scope="session")
def minilm_package(minilm: Path, shared: Shared) -> Callable[[str], Path]:
    """The package of all-MiniLM-L6-v2 by precision, made as users make it, by a process that does nothing else."""
    command = [sys.executable, "-m", "edgellm", "export", minilm]

    def make(precision: str) -> Path:
        return shared(
            f"minilm-{precision}",
            lambda path: subprocess.run([*command, path, "--precision", precision], check=True, capture_output=True),
        )

    return make


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
