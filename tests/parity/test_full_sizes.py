"""Best-known checkpoints at their full size: names and shapes are those that are expected, sizes come out right, and
the small ones run, with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
import edgellm_export
from edgellm.models.encoder import EncoderModel
from edgellm_export.architectures import catalog
from edgellm_export.planning.plan import Resources
from edgellm_export.planning.work_time import Speed
from full_sizes import CHECKPOINTS, LEFT_OUT, SPEECH, Checkpoint

pytestmark = pytest.mark.parity

NAMES = [each.name for each in CHECKPOINTS]
SMALL = 170_000_000  # parameters: a second or two for an export without calibration
RUN = [each for each in CHECKPOINTS if 0 < (each.parameters or 0) < SMALL]
APART = 0.06  # poolers that are left out, what is computed in advance


@pytest.fixture(scope="module")
def written(shared: Callable[..., Path], python: Callable[[str], str]) -> Path:
    program = Path(__file__).with_name("full_sizes.py")

    def make(out: Path) -> None:
        for version in ("4", "5"):
            subprocess.run([python(version), str(program), str(out)], check=True, stderr=subprocess.DEVNULL)

    return shared("full-sizes", make)


def counted(written: Path, checkpoint: Checkpoint) -> tuple[int, int]:
    """All parameters, and those of text."""
    found: list[int] = json.loads((written / f"parameters-{checkpoint.version}.json").read_text())[checkpoint.name]
    return found[0], found[1]


def test_each_model_type_has_one() -> None:
    here = {each.config["model_type"] for each in CHECKPOINTS}
    assert here.isdisjoint(LEFT_OUT)
    assert here | LEFT_OUT.keys() == catalog.CHECKPOINTS.keys()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=NAMES)
def test_what_is_written_down_gives_the_parameters_that_are_published(written: Path, checkpoint: Checkpoint) -> None:
    assert checkpoint.parameters in (None, counted(written, checkpoint)[0])


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=NAMES)
def test_a_plan_of_the_full_size(
    written: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Resources(threads=1, bandwidth=None, speed=Speed(1e9), memory_free=None, disk_free=1 << 40)
    monkeypatch.setattr("edgellm_export.pipeline.measure_resources", lambda _: machine)
    source = written / checkpoint.directory
    plan = edgellm_export.plan(source, tmp_path / "none", precision="fp32")
    weights = 4 * counted(written, checkpoint)[1]
    assert (1 - APART) * weights < plan.prediction.size < (1 + APART) * weights + rotary_tables(source)


def rotary_tables(source: Path) -> int:
    """The most bytes that they take, for two bases."""
    config = json.loads((source / "config.json").read_text())
    config = config.get("text_config", config)
    heads = config.get("num_attention_heads", 0)
    head_dim = config.get("head_dim") or (config["hidden_size"] // heads if heads else 0)
    return 2 * 4 * int(config.get("max_position_embeddings") or 0) * int(head_dim)


@pytest.mark.parametrize("checkpoint", RUN, ids=[each.name for each in RUN])
def test_a_full_size_runs(written: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, package = tmp_path / "source", tmp_path / "package"
    shutil.copytree(written / checkpoint.directory, source)
    fill(source / "model.safetensors")
    edgellm_export.export(source, package, precision="int8", calibrate=False, verify_quality=False)
    model: Any = edgellm.load(package)
    if isinstance(model, EncoderModel):
        assert np.isfinite(model.run([[5, 6, 7]])[0].logits).all()
    elif checkpoint.head == SPEECH:
        assert model.manifest.task == "automatic-speech-recognition"
    else:
        assert len(model.generate([5, 6, 7], max_new_tokens=3, min_new_tokens=3).tokens) >= 3


def fill(path: Path) -> None:
    """Random numbers for all tensors of the file, of the size that trained ones have."""
    with path.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    numbers = np.memmap(path, np.uint16, "r+", offset=start)
    draw, piece = np.random.default_rng(0), 1 << 22
    for begin in range(0, len(numbers), piece):
        part = numbers[begin : begin + piece]
        part[:] = (draw.standard_normal(len(part), np.float32) * np.float32(0.02)).view(np.uint32) >> 16
    numbers.flush()
