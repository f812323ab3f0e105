"""`edgellm eval` on texts: perplexity and divergence against torch, window by window."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers as hf
from click.testing import CliRunner, Result

import edgellm
import edgellm_export
from edgellm.cli import cli
from edgellm.evaluation import evaluate
from families import CONTEXT, Family, make_model
from text_checkpoints import SENTENCES, corpus

TEXT = "\n\n".join([*SENTENCES, *SENTENCES[::-1]])
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Decoder:
    """The reference, and the float32 package."""

    torch: Any
    tokenizer: tokenizers.Tokenizer
    checkpoint: Path
    package: Path


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """A Llama whose tokenizer puts <s> before a text, as Llama's own does."""
    directory = tmp_path_factory.mktemp("decoder")
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>"]
    trained.train_from_iterator(corpus(), vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer = trained._tokenizer
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": 48, "intermediate_size": 88, "head_dim": 16,
             "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3}  # fmt: skip
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = make_model(Family("llama-text", lambda: hf.LlamaConfig(max_position_embeddings=CONTEXT, **sizes, **ids)))
    model.save_pretrained(directory / "checkpoint")
    tokenizer.save(str(directory / "checkpoint" / "tokenizer.json"))
    out = directory / "package"
    edgellm_export.export(directory / "checkpoint", out, precision="fp32", verify_quality=False, calibrate=False)
    return Decoder(model, tokenizer, directory / "checkpoint", out)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)])


def evaluated(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def guide_losses(model: Any, ids: torch.Tensor, window: int, stride: int) -> Iterator[tuple[float, int, int]]:
    """transformers' guide "Perplexity of fixed-length models": of each window the model's own loss, how many tokens it
    is the mean of, and how many the guide weighs it with."""
    length, done = ids.shape[1], 0
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        inputs = ids[:, begin:end]
        labels = inputs.clone()
        labels[:, : -(end - done)] = -100
        with torch.no_grad():
            loss = model(inputs, labels=labels).loss.item()
        kept = int((labels[:, 1:] != -100).sum())
        if kept:
            yield loss, kept, int((labels != -100).sum()) - 1
        done = end
        if end == length:
            return


def guide_perplexity(model: Any, ids: torch.Tensor, window: int, stride: int) -> tuple[float, int]:
    losses = list(guide_losses(model, ids, window, stride))
    tokens = sum(kept for _, kept, _ in losses)
    return math.exp(sum(loss * kept for loss, kept, _ in losses) / tokens), tokens


@pytest.mark.parametrize(("window", "stride"), [(96, 48), (64, 64), (40, 7), (33, 32), (96, 96)])
def test_perplexity_is_that_of_transformers(decoder: Decoder, tmp_path: Path, window: int, stride: int) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    found = evaluated(decoder.package, "--data", tmp_path / "text.txt", "--window", window, "--stride", stride)
    ids = torch.tensor([decoder.tokenizer.encode(TEXT).ids])
    expected, tokens = guide_perplexity(decoder.torch, ids, window, stride)
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(expected, rel=TOLERANCE)
    assert found["details"]["tokens"] == tokens
    assert found["task"] == "perplexity"


def test_the_guides_own_weights_differ_little(decoder: Decoder) -> None:
    """The guide weighs a window that overlaps with a token less than it predicts; the documentation says so."""
    ids = torch.tensor([decoder.tokenizer.encode(TEXT).ids])
    losses = list(guide_losses(decoder.torch, ids, 96, 48))
    theirs = math.exp(sum(loss * weight for loss, _, weight in losses) / sum(weight for *_, weight in losses))
    ours = evaluate(decoder.package, [TEXT], window=96, stride=48, threads=1).metrics["perplexity"].value
    assert 0 < abs(theirs / ours - 1) < 0.01


def test_per_word_and_byte(decoder: Decoder) -> None:
    """As lm-evaluation-harness counts them: words between white space, bytes of UTF-8, of all that is predicted; with
    <s> in front, that is the whole text."""
    result = evaluate(decoder.package, [TEXT], threads=1)
    nll = result.metrics["nll"].value * result.details["tokens"]
    words, size = len(re.split(r"\s+", TEXT)), len(TEXT.encode())
    assert (result.details["words"], result.details["bytes"]) == (words, size)
    assert result.metrics["word_perplexity"].value == pytest.approx(math.exp(nll / words))
    assert result.metrics["byte_perplexity"].value == pytest.approx(math.exp(nll / size))
    assert result.metrics["bits_per_byte"].value == pytest.approx(nll / size / math.log(2))


def test_each_record_is_a_text_of_its_own(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*SENTENCES, ""]))
    found = evaluated(decoder.package, "--data", path)
    model = edgellm.load(decoder.package, threads=1)
    logprobs = [p for text in SENTENCES for p in model.score(text).logprobs]
    assert isinstance(model, edgellm.Model)
    assert found["metrics"]["nll"]["value"] == pytest.approx(-sum(logprobs) / len(logprobs), rel=1e-9)
