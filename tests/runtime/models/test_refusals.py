"""What a model refuses, and what ends a call early: limits, wrong input, cancellation, time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import InputError, Model, OptionError, PackageCorruptError, PackageNotFoundError
from tiny_package import BOS, TinyConfig, greedy

PackageMaker = Callable[[TinyConfig], Path]
TINY = TinyConfig()
TO_THE_LIMIT: dict[str, Any] = {"eos_token_id": []}


class SetAfter:
    """Is set from the `count`-th question on."""

    def __init__(self, count: int) -> None:
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_cancelled_while_generating(model: Model, options: dict[str, Any]) -> None:
    result = model.generate("Hi", max_new_tokens=50, cancel=SetAfter(4), **TO_THE_LIMIT, **options)
    assert result.finish_reason == "cancelled"
    assert 1 <= len(result.tokens) < 10


def test_cancelled_during_the_prompt(package: Path) -> None:
    model = edgellm.load(package, prefill_chunk=4)
    event = threading.Event()
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done == 8:
            event.set()

    prompt = list(range(40))
    result = model.generate(prompt, cancel=event, progress=progress)
    assert (result.tokens, result.finish_reason, seen) == ((), "cancelled", [4, 8])
    event.clear()
    model.reset()
    (piece,) = model.stream(prompt, cancel=event, progress=progress)
    assert (piece.text, piece.tokens, piece.finish_reason) == ("", (), "cancelled")
    event.clear()
    assert model.generate(prompt, max_new_tokens=5, **TO_THE_LIMIT).tokens == greedy(TINY, prompt, 5)


def test_out_of_time(package: Path) -> None:
    model = edgellm.load(package, prefill_chunk=1)
    result = model.generate(list(range(90)), max_time=1e-6)
    assert (result.tokens, result.finish_reason) == ((), "time")


def test_the_context_is_the_limit(model: Model) -> None:
    prompt = list(range(90))
    result = model.generate(prompt, max_new_tokens=1000, **TO_THE_LIMIT)
    assert (len(result.tokens), result.finish_reason) == (6, "length")
    assert result.tokens == greedy(TINY, prompt, 6)
    assert model.logits(list(range(96))).shape == (96, TINY.vocab_size)
    with pytest.raises(edgellm.ContextOverflowError, match="no room for a new token"):
        model.generate(list(range(96)))
    for call in (model.generate, model.logits, model.score):
        with pytest.raises(edgellm.ContextOverflowError, match="the prompt has 97 tokens, the model's context is 96"):
            call(list(range(97)))


def test_an_empty_prompt_is_bos_or_an_error(model: Model, make_package: PackageMaker) -> None:
    assert model.generate("", max_new_tokens=5, **TO_THE_LIMIT).tokens == greedy(TINY, [BOS], 5)
    without = edgellm.load(make_package(TinyConfig(bos=None)))
    with pytest.raises(InputError, match="no BOS token"):
        without.generate("")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the list of prompts is empty"),
        (None, "found NoneType"),
        (b"Hi", "found bytes"),
        (5, "found int"),
        ([1, 264], "token id 264, expected ids from 0 to 263"),
        ([1, -1], "token id -1"),
        ([1, 2.5], "holds 2.5"),
        ([1, True], "holds True"),
        ([1, 2**70], "beyond 64 bits"),
        (["ok", 3], "found int"),
        (["ok", "\ud800"], "lone surrogate"),
        (np.zeros((2, 2), np.int64), "shape"),
        (np.zeros(2), "float64"),
        ([np.zeros((1, 1), np.int64)], "one-dimensional"),
    ],
)
def test_wrong_prompts(model: Model, prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.generate(prompt)


def test_wrong_options(model: Model) -> None:
    with pytest.raises(OptionError, match="did you mean 'temperature'"):
        model.generate("Hi", temprature=1)
    with pytest.raises(OptionError, match="beams are not final before the end"):
        model.stream("Hi", num_beams=2)
    with pytest.raises(InputError, match="stream takes one prompt"):
        model.stream(["Hi"])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="token ids of this model are below 264"):
        model.generate("Hi", suppress_tokens=[999])


def test_wrong_packages(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageNotFoundError):
        edgellm.load(tmp_path / "nothing")
    with pytest.raises(OptionError, match="prefill_chunk is 0"):
        edgellm.load(package, prefill_chunk=0)
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    (copy / "model.onnx.data").write_bytes(b"x" * (copy / "model.onnx.data").stat().st_size)
    with pytest.raises(PackageCorruptError, match="was changed after the export"):
        edgellm.load(copy)


def test_a_manifest_that_does_not_fit_the_graph(package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    manifest = copy / "edgellm.json"
    manifest.write_text(manifest.read_text().replace('"num_layers": 2', '"num_layers": 3'))
    with pytest.raises(PackageCorruptError, match=r"disagree: missing .*past_key_values\.2\.key"):
        edgellm.load(copy)
