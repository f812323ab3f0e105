"""Every tokenizer gives here the tokens and the text that it gives in transformers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgellm.errors import EdgellmError
from edgellm.text.tokenizer import Detokenizer, Tokenizer, open_tokenizer
from edgellm_export.tokenizer.files import read_text_files
from edgellm_export.witness.process import Reader
from edgellm_export.witness.questions import TEXTS, Question
from edgellm_export.witness.text import text_checks
from making_tokenizers import ROWS, Row

pytestmark = pytest.mark.parity

# Slow tokenizers drop spaces beside unknown tokens when they decode. (And the library's table of a SentencePiece
# normalization drops marks that nothing stands for, where SentencePiece makes an unknown token of them.)
DECODES_DIFFERENTLY = ("m2m100",)
DECODERS = ("gpt2", "starcoder2", "qwen2", "qwen3", "gpt_neox", "llama", "mistral", "phi3", "gemma2", "gemma3")


@pytest.fixture(scope="session")
def tokenizers(shared: Callable[..., Path], python: Callable[[str], str]) -> Callable[[str], Path]:
    program = str(Path(__file__).parent / "making_tokenizers.py")
    return lambda version: shared(
        f"tokenizers-{version}", lambda out: subprocess.run([python(version), program, str(out)], check=True)
    )


def cases() -> Iterator[tuple[Row, str]]:
    for row in ROWS:
        yield row, "5"
        if row.same:
            yield row, "4"


CASES = list(cases())


@pytest.mark.parametrize(("row", "read"), CASES, ids=[f"{row.name}-{read}" for row, read in CASES])
def test_a_tokenizer_means_what_it_means_in_transformers(
    row: Row,
    read: str,
    tokenizers: Callable[[str], Path],
    reader: Callable[[str], Reader],
    tmp_path: Path,
) -> None:
    source = tokenizers(row.made_by) / row.name
    failed = source / "failed"
    assert not failed.exists(), failed.read_text()
    if row.refused is not None:
        with pytest.raises(EdgellmError, match=row.refused):
            read_text_files(source)
        return
    tokenizer = packaged(source, tmp_path)
    found = answer(reader(read), source, tmp_path, row.kind)
    assert "error" not in found, found
    model = cast(Any, SimpleNamespace(tokenizer=tokenizer))
    skipped = ("text", "text with special tokens") if row.kind in DECODES_DIFFERENTLY else ()
    wrong = [check for check in text_checks(model, found) if check.differences and check.name not in skipped]
    assert not wrong, "\n".join(f"{check.name}: {check.differences[:3]}" for check in wrong)
    for ids in found["sequences"]:
        assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def packaged(source: Path, out: Path) -> Tokenizer:
    for name, content in read_text_files(source).items():
        (out / name).write_bytes(content)
    tokenizer = open_tokenizer(out)
    assert tokenizer is not None
    return tokenizer


def answer(reader: Reader, source: Path, out: Path, kind: str) -> Any:
    """What that transformers says of the tokenizer; there is no model."""
    task = "text-generation" if kind in DECODERS else "feature-extraction"  # these read pairs
    texts = [text for text in TEXTS if kind != "m2m100" or "\u0301\u0301" not in text]
    return reader.ask(Question(str(source), None, task, str(out), length=16, texts=texts))["tokenizer"]


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    detokenizer = Detokenizer(tokenizer)
    return "".join(map(detokenizer.add, ids)) + detokenizer.flush()
