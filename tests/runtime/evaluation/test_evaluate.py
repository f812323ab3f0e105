"""`evaluate` on tiny packages without an exporter: chats, graphs of other tools, and what cannot be done."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from concat_directory import write_directory
from edgellm.errors import ChatTemplateError, InputError, MissingDependencyError, OptionError, TaskError
from edgellm.evaluation import evaluate
from edgellm.evaluation.distributions import log_softmax
from tiny_package import TinyConfig, reference_logits, tiny_tokenizer

ROWS = [{"question": "Who?", "answers": ["x"]}, {"question": "What is it?", "answers": {"text": []}}]
TEXTS = ["Hello there, you!", "And what of it? " * 4]


def test_perplexity_is_that_of_the_plain_model(model: edgellm.Model) -> None:
    """The model in numpy, without a cache."""
    losses: list[float] = []
    for text in TEXTS:
        ids = tiny_tokenizer().encode(text).ids
        logprobs = log_softmax(reference_logits(TinyConfig(), ids))
        losses += [-logprobs[i, token] for i, token in enumerate(ids[1:])]
    result = evaluate(model, TEXTS)
    assert result.metrics["perplexity"].value == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    low, high = result.metrics["nll"].low, result.metrics["nll"].high
    half = 1.96 * np.std(losses, ddof=1) / np.sqrt(len(losses))
    assert (low, high) == pytest.approx((np.mean(losses) - half, np.mean(losses) + half), rel=1e-3)


def test_chats(model: edgellm.Model, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options: dict[str, Any] = {"chat": True, "prompt": "Q: {question}", "max_new_tokens": 6}
    result = evaluate(model, ROWS, predictions=out, batch_size=2, **options)
    found = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
    for row, text in zip(ROWS, found, strict=True):
        message = {"role": "user", "content": f"Q: {row['question']}"}
        assert text == model.chat([message], max_new_tokens=6, do_sample=False).text.strip()
    assert result.settings["chat"] is True
    assert result.details == {"questions": 2, "without_answer": 1}


def test_questions_without_a_context(model: edgellm.Model, tmp_path: Path) -> None:
    evaluate(model, ROWS[:1], predictions=tmp_path / "out.jsonl", max_new_tokens=6)
    text = model.generate("Question: Who?\nAnswer:", max_new_tokens=6, stop_strings=["\n"]).text
    assert json.loads((tmp_path / "out.jsonl").read_text())["prediction"] == text.partition("\n")[0].strip()


def test_graphs_of_other_tools(tmp_path: Path) -> None:
    """Whose prompts are cut elsewhere, and which may name no special tokens."""
    directory = write_directory(tmp_path / "graphs")
    tiny_tokenizer_of(61, directory)
    ours, theirs = (edgellm.load(directory, threads=1, prefill_chunk=chunk) for chunk in (5, 16))
    result = evaluate(ours, ["abc def ghi abc def ghi abc"], reference=theirs)
    assert result.metrics["kl_divergence"].value == pytest.approx(0, abs=1e-6)
    assert result.metrics["top1_agreement"].value == 1
    assert result.package["manifest_sha256"] is None


def tiny_tokenizer_of(size: int, directory: Path) -> None:
    """A token per character."""
    import tokenizers

    letters = {chr(97 + i) if i < 26 else f"<{i}>": i for i in range(size)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=letters, merges=[], unk_token="<30>"))
    tokenizer.save(str(directory / "tokenizer.json"))


def test_what_cannot_be_done(model: edgellm.Model, package: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="the package is for text-generation, and token-classification needs one"):
        evaluate(model, TEXTS, task="token-classification")
    with pytest.raises(OptionError, match="there is no evaluation 'perplexitie'; did you mean 'perplexity'"):
        evaluate(model, TEXTS, task="perplexitie")
    with pytest.raises(OptionError, match="perplexity has no option 'windows'; did you mean 'window'"):
        evaluate(model, TEXTS, windows=3)
    with pytest.raises(OptionError, match="unknown option 'max_new_token'; did you mean"):
        evaluate(model, [{"source": "a", "target": "b"}], max_new_token=3)
    with pytest.raises(
        InputError, match=r"record 1: the prompt asks for \{context\}, and there are the columns question"
    ):
        evaluate(model, ROWS, prompt="{context} {question}")
    with pytest.raises(InputError, match="the data is empty"):
        evaluate(model, [])
    with pytest.raises(OptionError, match="batch_size is 0"):
        evaluate(model, TEXTS, batch_size=0)
    with pytest.raises(InputError, match="record 1: the prompt has 96 tokens, this model takes at most 95"):
        evaluate(model, [{"source": "a" * 96, "target": "b"}])
    with pytest.raises(InputError, match=r"record 1: the prompt has 1\d\d tokens, this model takes at most 95"):
        evaluate(model, [{"source": "a" * 94, "target": "b"}], chat=True)


@pytest.mark.parametrize("name", ["sacrebleu", "rouge_score"])
def test_a_missing_library_is_found_before_anything_runs(
    model: edgellm.Model, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in [*sys.modules]:
        if module == name or module.startswith(f"{name}."):
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(model, "new_engine", None)
    with pytest.raises(MissingDependencyError, match=r"not installed.*pip install edgellm\[eval\]"):
        evaluate(model, [{"source": "a", "target": "b"}])


def test_a_missing_tokenizer_of_sacrebleu(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("MeCab", "ipadic"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"ja-mecab needs packages .* `pip install sacrebleu\[ja\]`"):
        evaluate(model, [{"source": "a", "target": "b"}], bleu_tokenize="ja-mecab")


def test_without_a_tokenizer_there_is_nothing_to_read_texts_with(package: Path, model: edgellm.Model) -> None:
    bare = edgellm.Model(package, model.manifest, None, model._loaded, model.new_engine)
    with pytest.raises(InputError, match="no tokenizer"):
        evaluate(bare, TEXTS)


def test_a_package_without_a_chat_template(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "chat_template", type(model.chat_template)({}, {}))
    with pytest.raises(ChatTemplateError):
        evaluate(model, ROWS, chat=True, max_new_tokens=3)
