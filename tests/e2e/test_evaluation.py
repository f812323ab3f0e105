"""`edgellm eval` on texts: perplexity and divergence against torch, window by window."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import tempfile
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
import text_checkpoints
from edgellm.cli import cli
from edgellm.commands.eval import STEPS
from edgellm.commands.progress import Lines
from edgellm.evaluation import evaluate
from edgellm.evaluation.data import TOPICS, builtin_text
from edgellm_export.calibration import texts as evaluation_text
from families import CONTEXT, Family, make_model, save_tokenizer
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
    save_tokenizer(tokenizer, directory / "checkpoint")
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


def test_texts_joined_are_one(decoder: Decoder, tmp_path: Path) -> None:
    """As the guide of transformers joins WikiText's lines."""
    path = tmp_path / "texts.csv"
    path.write_text("line\n" + "".join(f'"{text}"\n' for text in SENTENCES))
    found = evaluated(decoder.package, "--data", path, "--column", "text=line", "--join")
    whole = evaluate(decoder.package, ["\n\n".join(SENTENCES)], threads=1)
    assert found["metrics"]["perplexity"]["value"] == whole.metrics["perplexity"].value


def test_the_limit_counts_windows(decoder: Decoder) -> None:
    result = evaluate(decoder.package, [TEXT], window=32, stride=32, limit=2, threads=1)
    assert (result.data["examples"], result.details["tokens"]) == (2, 62)


def test_built_in_text(decoder: Decoder) -> None:
    """That of the quality report, which calibration does not see."""
    assert TOPICS == evaluation_text.EVALUATION_TOPICS
    assert not {*TOPICS} & {*evaluation_text.CALIBRATION_TOPICS}
    assert builtin_text() == evaluation_text.topics(evaluation_text.EVALUATION_TOPICS)
    found = evaluated(decoder.package, "--limit", 2)
    assert found["data"]["name"] == "built-in English text"


@pytest.fixture(scope="module")
def int8(decoder: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "package"
    edgellm_export.export(decoder.checkpoint, out, precision="int8", verify_quality=False, calibrate=False)
    return out


def direct_comparison(decoder: Decoder, package: Path, window: int, stride: int) -> tuple[list[float], list[bool]]:
    """KL divergence and agreement at each token that a window predicts, from torch's logits and whole windows of the
    package's."""
    model = edgellm.load(package, threads=1)
    assert isinstance(model, edgellm.Model)
    ids = decoder.tokenizer.encode(TEXT).ids
    divergences, same, done = [], [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        rows = slice(max(done, begin + 1) - 1 - begin, end - 1 - begin)
        with torch.no_grad():
            p = decoder.torch(torch.tensor([ids[begin:end]])).logits[0, rows].double().log_softmax(dim=-1)
        q = torch.tensor(model.logits(ids[begin:end])[rows]).double().log_softmax(dim=-1)
        divergences += (p.exp() * (p - q)).sum(dim=-1).tolist()
        same += (p.argmax(dim=-1) == q.argmax(dim=-1)).tolist()
        done = end
        if end == len(ids):
            break
    return divergences, same


@pytest.mark.parametrize("kind", ["checkpoint", "package"])
def test_divergence_is_that_of_the_logits(decoder: Decoder, int8: Path, tmp_path: Path, kind: str) -> None:
    """The reference as a checkpoint, and as the float32 package of it."""
    (tmp_path / "text.txt").write_text(TEXT)
    reference = decoder.checkpoint if kind == "checkpoint" else decoder.package
    data = ["--data", tmp_path / "text.txt", "--window", 48, "--stride", 20]
    found = evaluated(int8, *data, "--reference", reference)
    divergences, same = direct_comparison(decoder, int8, 48, 20)
    metrics = found["metrics"]
    assert found["details"]["tokens"] == len(divergences)
    assert metrics["kl_divergence"]["value"] == pytest.approx(sum(divergences) / len(divergences), rel=1e-3)
    assert metrics["kl_divergence_max"]["value"] == pytest.approx(max(divergences), rel=1e-3)
    assert metrics["top1_agreement"]["value"] == pytest.approx(sum(same) / len(same))
    median = found["details"]["kl_divergence_quantiles"]["0.5"]
    assert median == pytest.approx(float(torch.tensor(divergences).quantile(0.5)), rel=1e-2)
    assert found["reference"]["path"] == str(reference)
    alone = [evaluated(package, *data)["metrics"]["perplexity"]["value"] for package in (int8, decoder.package)]
    both = [metrics[name]["value"] for name in ("perplexity", "perplexity_reference")]
    assert both == pytest.approx(alone, rel=1e-5)
    assert metrics["perplexity_ratio"]["value"] == pytest.approx(alone[0] / alone[1], rel=1e-5)


def test_a_package_does_not_diverge_from_itself(decoder: Decoder) -> None:
    result = evaluate(decoder.package, [TEXT], reference=decoder.package, threads=1)
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    assert metrics["kl_divergence"] == pytest.approx(0, abs=1e-9)
    assert (metrics["top1_agreement"], metrics["perplexity_ratio"]) == (1.0, 1.0)


def test_memory_does_not_hold_a_windows_logits(decoder: Decoder) -> None:
    """Logits come chunk by chunk, and two models that cut their chunks differently still agree."""
    one, other = (edgellm.load(decoder.package, threads=1, prefill_chunk=chunk) for chunk in (7, 32))
    result = evaluate(one, [TEXT], reference=other)
    assert result.metrics["kl_divergence"].value < 1e-9
    assert isinstance(one, edgellm.Model)
    assert [len(chunk) for chunk in one.logits_in_chunks([*range(1, 20)])] == [7, 7, 5]


def test_the_exported_reference_leaves_nothing_behind(
    decoder: Decoder, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    evaluate(int8, SENTENCES[:1], reference=decoder.checkpoint, threads=1)
    with pytest.raises(edgellm.EdgellmError):
        evaluate(int8, SENTENCES[:1], reference=tmp_path / "nowhere", threads=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("installed_signals")
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
@pytest.mark.parametrize("step", ["exporting the reference", "evaluating"])
def test_a_signal_leaves_nothing_behind(
    decoder: Decoder,
    int8: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: signal.Signals,
    exit_code: int,
) -> None:
    def show(lines: object, at: str, done: int, total: int) -> None:
        if STEPS[at] == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Lines, "__call__", show)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = run(int8, "--reference", decoder.checkpoint, "--limit", 3, "--predictions", tmp_path / "out.jsonl")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert not list(tmp_path.iterdir())


def test_models_of_other_vocabularies_are_not_compared(
    decoder: Decoder, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(decoder.checkpoint, checkpoint)
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    a, b = (token for token, i in vocab.items() if i in (100, 101))
    vocab[a], vocab[b] = vocab[b], vocab[a]
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    result = run(decoder.package, "--reference", checkpoint, "--limit", 1)
    assert result.exit_code == 2
    assert "token 100 is" in result.stderr


def test_a_reference_is_a_checkpoint_or_a_package(decoder: Decoder, tmp_path: Path) -> None:
    result = run(decoder.package, "--reference", tmp_path / "nowhere")
    assert result.exit_code == 4
    assert str(tmp_path / "nowhere") in result.stderr


def test_encoder_decoders_by_their_targets(tmp_path: Path) -> None:
    """transformers' loss of labels, source by source; and the divergence from themselves."""
    checkpoint = text_checkpoints.t5(tmp_path / "checkpoint")
    package = tmp_path / "package"
    edgellm_export.export(tmp_path / "checkpoint", package, precision="fp32", verify_quality=False, calibrate=False)
    rows = [{"source": text, "target": text[::-1][:20]} for text in SENTENCES]
    total = tokens = 0.0
    for row in rows:
        labels = checkpoint.tokenizer(row["target"], return_tensors="pt")["input_ids"]
        inputs = checkpoint.tokenizer(row["source"], return_tensors="pt")
        with torch.no_grad():
            loss = checkpoint.model(input_ids=inputs["input_ids"], labels=labels).loss.item()
        total, tokens = total + loss * labels.shape[1], tokens + labels.shape[1]
    result = evaluate(package, rows, task="perplexity", threads=1)
    assert result.metrics["perplexity"].value == pytest.approx(math.exp(total / tokens), rel=TOLERANCE)
    assert result.details["tokens"] == tokens
    compared = evaluate(package, rows, reference=package, threads=1)
    assert compared.metrics["kl_divergence"].value == pytest.approx(0, abs=1e-9)
    assert compared.metrics["perplexity"].value == pytest.approx(result.metrics["perplexity"].value, rel=1e-6)


@pytest.mark.parametrize("stops", [False, True])
def test_a_decoder_is_asked_by_a_template(decoder: Decoder, tmp_path: Path, stops: bool) -> None:
    """Greedily, as transformers generates; the answer ends before a stop string."""
    data, predictions = tmp_path / "data.jsonl", tmp_path / "predictions.jsonl"
    rows = [{"source": text[:20], "language": "German", "target": text} for text in SENTENCES]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--prompt", "To {language}: {source} =", "--max-new-tokens", 12, "--predictions", predictions]
    found = evaluated(decoder.package, "--data", data, *arguments, *(["--stop-strings", "e"] if stops else []))
    texts = [json.loads(line)["prediction"] for line in predictions.read_text().splitlines()]
    for row, text in zip(rows, texts, strict=True):
        ids = torch.tensor([decoder.tokenizer.encode(f"To German: {row['source']} =").ids])
        tokens = decoder.torch.generate(ids, max_new_tokens=12, do_sample=False)[0]
        whole, before = (decoder.tokenizer.decode(part.tolist()) for part in (tokens, ids[0]))
        answer = whole[len(before) :]
        assert text == (answer.partition("e")[0] if stops else answer).strip()
    assert found["task"] == "text2text-generation"
    assert found["metrics"]["exact_match"]["value"] == 0
    assert found["settings"]["prompt"] == "To {language}: {source} ="


def test_a_decoder_answers_questions_in_a_line(decoder: Decoder, tmp_path: Path) -> None:
    rows = [{"question": "Who?", "context": SENTENCES[0], "answers": ["Sarah"]}]
    result = evaluate(decoder.package, rows, max_new_tokens=8, predictions=tmp_path / "out.jsonl", threads=1)
    assert result.task == "question-answering"
    assert "\n" not in json.loads((tmp_path / "out.jsonl").read_text())["prediction"]
    model = edgellm.load(decoder.package, threads=1)
    assert isinstance(model, edgellm.Model)
    prompt = f"{SENTENCES[0]}\n\nQuestion: Who?\nAnswer:"
    text = model.generate(prompt, max_new_tokens=8, stop_strings=["\n"]).text.partition("\n")[0].strip()
    assert json.loads((tmp_path / "out.jsonl").read_text())["prediction"] == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", 97], "window is 97, expected 2 to 96 tokens, the model's context"),
        (["--window", 1], "window is 1, expected 2 to 96 tokens"),
        (["--window", 8, "--stride", 9], "stride is 9, expected 1 to 8 tokens, the window"),
        (["--task", "text-classification"], "the package is for text-generation, and text-classification needs one"),
        (["--column", "sorce=de"], "no evaluation asks for a column 'sorce'; did you mean 'source'?"),
        (["--data", "nothing.txt"], "nothing.txt: cannot be read (No such file or directory)"),
        (["--reference", "x", "--task", "perplexity"], "a reference is for divergence, and the task is perplexity"),
        (["--task", "translation", "--prompt", "{target}?"], "the prompt asks for {target}"),
        (["--task", "translation", "--bleu-tokenize", "flores200"], "Invalid value for '--bleu-tokenize'"),
        (["--task", "translation", "--num-return-sequences", 2], "leave out num_return_sequences"),
    ],
)
def test_one_line_about_what_is_wrong(decoder: Decoder, arguments: list[Any], message: str) -> None:
    result = run(decoder.package, *arguments)
    assert (result.exit_code, result.stdout) == (2 if "--task" not in arguments[:1] else result.exit_code, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_text_without_tokens_to_predict(decoder: Decoder) -> None:
    with pytest.raises(edgellm.InputError, match="nothing to evaluate: all of its texts are empty"):
        evaluate(decoder.package, ["", ""], threads=1)


def test_the_table(decoder: Decoder) -> None:
    result = run(decoder.package, "--limit", 2)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"package  {decoder.package}, fp32")
    assert lines[2] == "task     perplexity, window 96, stride 48, limit 2"
    assert lines[4].split() == ["95%", "interval"]
    assert re.fullmatch(r"perplexity +\d+\.\d+ +\d+\.\d+ to \d+\.\d+", lines[5])
    assert re.fullmatch(r"tokens 143, words \d+, bytes \d+, \d+\.\d s", lines[-1])
    assert result.stderr.splitlines()[-1] == "evaluating: 100%"


@pytest.mark.real_model
def test_the_real_model(smollm2_package: Any, smollm2_gguf: Path) -> None:
    """SmolLM2-135M in int8 beside its GGUF file, on the text of the quality report."""
    found = evaluated(smollm2_package("int8"), "--reference", smollm2_gguf, "--limit", 2, "--window", 256)
    metrics = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert 0 < metrics["kl_divergence"] < 0.01
    assert metrics["top1_agreement"] > 0.9
    assert 0.98 < metrics["perplexity_ratio"] < 1.03
    assert 5 < metrics["perplexity"] < 40
