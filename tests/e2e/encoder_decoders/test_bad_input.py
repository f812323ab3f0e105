"""What users of an encoder-decoder get wrong, and packages that do not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import edgellm
from edgellm.cli import cli
from encoder_decoder_checks import Load
from encoder_decoder_families import LONGEST


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: m.generate(list(range(3, 3 + LONGEST + 1))), edgellm.ContextOverflowError, "table of positions 48"),
        (lambda m: m.generate([]), edgellm.InputError, "the list of prompts is empty"),
        (lambda m: m.generate([5, 999]), edgellm.InputError, "token id 999"),
        (lambda m: m.generate([5], prompt_lookup=True), edgellm.OptionError, "text-generation"),
        (lambda m: m.generate([5], reasoning_budget=3), edgellm.OptionError, "reasoning_budget is for text-generation"),
        (lambda m: m.generate([5], decoder_start_token_id="x"), edgellm.OptionError, "expected a token id"),
        (lambda m: m.generate([5], decoder_start_token_id=131), edgellm.InputError, "token id 131"),
        (lambda m: m.generate([5], decoder_input_ids=[9] * LONGEST), edgellm.ContextOverflowError, "49 tokens"),
        (lambda m: m.generate("x", src_lang="en_XX"), edgellm.OptionError, "nothing in the source names its language"),
        (lambda m: m.generate("x", tgt_lang="en_XX"), edgellm.OptionError, "has no language codes"),
        (lambda m: m.generate([5], max_length=1), edgellm.OptionError, "max_length is 1"),
        (lambda m: m.generate([5], overflow="shift"), edgellm.OptionError, "a source is read whole"),
        (lambda m: m.generate([5], overflow="truncate", overflow_keep=2), edgellm.OptionError, "cuts its end"),
        (lambda m: m.score([5], [2]), edgellm.InputError, "behind the decoder start token"),
    ],
)
def test_bad_input(make: Callable[[Any], Any], error: type[Exception], message: str, load: Load) -> None:
    with pytest.raises(error, match=message):
        make(load("bart"))


def test_the_wrong_task(load: Load) -> None:
    path = load("t5").info.path
    for arguments in (["chat", str(path), "hi"], ["generate", str(path), "hi"], ["bench", str(path)]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code != 0
        assert "is a package for text2text-generation" in result.output


def test_a_graph_of_another_package(load: Load, package: Callable[..., Path], tmp_path: Path) -> None:
    """The decoder of a model with other heads."""
    out = tmp_path / "package"
    shutil.copytree(package("t5"), out)
    manifest = json.loads((out / "edgellm.json").read_text())
    manifest["cross_cache"]["num_heads"] = 7
    (out / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(edgellm.PackageCorruptError, match="promises 7 heads"):
        edgellm.load(out)
    del manifest["graphs"]["encoder"]
    (out / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(edgellm.PackageCorruptError, match="needs the graphs encoder and decoder"):
        edgellm.load(out)
