"""`edgellm eval` on labels, tags, answers and texts: what the model says is what transformers' says on the same
checkpoint, and the scores are the libraries' on these predictions."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from click.testing import CliRunner, Result
from rouge_score import rouge_scorer
from transformers.data.metrics import squad_metrics

import edgellm_export
import text_checkpoints
from edgellm.cli import cli
from edgellm.evaluation import evaluate
from edgellm.pipelines import question_answering
from edgellm.pipelines.question_answering import Spans
from text_checkpoints import CONTEXT, NER_LABELS, NLI_LABELS, SENTENCES, Checkpoint, Recipe

with warnings.catch_warnings():  # of their dependencies
    warnings.simplefilter("ignore")
    import seqeval.metrics as seqeval
    import sklearn.metrics as sklearn

TEXTS = [part for sentence in SENTENCES for part in (sentence, sentence.upper(), sentence[::-1])]
CLASSIFIER = Recipe("bert", "text-classification", tuple(NLI_LABELS))
Both = tuple[Path, Checkpoint]  # a float32 package, and what it was made of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Both]:
    """By recipe, or by a function that makes a checkpoint at a path."""

    @cache
    def make(recipe: Recipe | Callable[[Path], Checkpoint]) -> Both:
        directory = tmp_path_factory.mktemp("evaluated")
        path = directory / "checkpoint"
        checkpoint = recipe.make(path) if isinstance(recipe, Recipe) else recipe(path)
        edgellm_export.export(path, directory / "package", precision="fp32", verify_quality=False, calibrate=False)
        return directory / "package", checkpoint

    return make


def run(package: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli, ["eval", str(package), "--threads", "1", *map(str, arguments)])


def evaluated(package: Path, rows: Sequence[Mapping[str, Any]], tmp_path: Path, *arguments: object) -> tuple[Any, Any]:
    """What --json prints, and the predictions."""
    data, predictions = tmp_path / "data.jsonl", tmp_path / "predictions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(package, "--data", data, "--predictions", predictions, "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), [json.loads(line) for line in predictions.read_text().splitlines()]


def value(found: Any, name: str) -> float:
    metric = found["metrics"][name]
    assert metric["low"] is None or metric["low"] <= metric["value"] + 1e-9
    assert metric["high"] is None or metric["value"] <= metric["high"] + 1e-9
    return float(metric["value"])


def scored_by_torch(checkpoint: Checkpoint, texts: Sequence[Any], pairs: Sequence[str] | None = None) -> torch.Tensor:
    """Logits, text by text."""
    rows = []
    for i, text in enumerate(texts):
        inputs = checkpoint.tokenizer(text, None if pairs is None else pairs[i], return_tensors="pt")
        with torch.no_grad():
            rows.append(checkpoint.model(**inputs).logits[0])
    return torch.stack(rows)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_text_classification(made: Callable[..., Both], tmp_path: Path, pairs: bool) -> None:
    package, checkpoint = made(CLASSIFIER)
    seconds = TEXTS[::-1] if pairs else None
    predicted = scored_by_torch(checkpoint, TEXTS, seconds).argmax(dim=1).tolist()
    right = [(label + (i % 3 == 0)) % len(NLI_LABELS) for i, label in enumerate(predicted)]
    rows = [
        {"text": text, "label": NLI_LABELS[label], **({"text_pair": TEXTS[::-1][i]} if pairs else {})}
        for i, (text, label) in enumerate(zip(TEXTS, right, strict=True))
    ]
    found, predictions = evaluated(package, rows, tmp_path)
    assert [line["prediction"] for line in predictions] == [NLI_LABELS[label] for label in predicted]
    assert found["task"] == "text-classification"
    assert value(found, "accuracy") == sklearn.accuracy_score(right, predicted)
    for average in ("macro", "micro", "weighted"):
        expected = sklearn.f1_score(right, predicted, average=average)
        assert value(found, f"f1_{average}") == pytest.approx(expected)


def test_labels_by_number_and_by_another_name(made: Callable[..., Both], tmp_path: Path) -> None:
    package, _ = made(CLASSIFIER)
    named = [{"text": text, "label": NLI_LABELS[i % 3]} for i, text in enumerate(TEXTS)]
    numbered = [{"text": row["text"], "label": NLI_LABELS.index(row["label"])} for row in named]
    others = [{"sentence": row["text"], "gold": row["label"][:3]} for row in named]
    expected, _ = evaluated(package, named, tmp_path)
    renaming = [f"--label={label[:3]}={label}" for label in NLI_LABELS]
    for rows, arguments in ((numbered, []), (others, ["--column=text=sentence", "--column=label=gold", *renaming])):
        found, _ = evaluated(package, rows, tmp_path, *arguments)
        assert found["metrics"] == expected["metrics"]


def test_two_labels_have_an_f1_of_the_second(made: Callable[..., Both], tmp_path: Path) -> None:
    package, checkpoint = made(Recipe("distilbert", "text-classification", ("bad", "good")))
    predicted = scored_by_torch(checkpoint, TEXTS).argmax(dim=1).tolist()
    right = [label ^ (i % 4 == 0) for i, label in enumerate(predicted)]
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, right, strict=True)]
    for arguments, positive in (([], 1), (["--positive", "bad"], 0)):
        found, _ = evaluated(package, rows, tmp_path, *arguments)
        expected = sklearn.f1_score(right, predicted, pos_label=positive, zero_division=0)
        assert value(found, "f1") == pytest.approx(expected)
        assert found["settings"]["positive"] == ("bad", "good")[positive]


def test_several_labels_of_a_text(made: Callable[..., Both], tmp_path: Path) -> None:
    settings = (("problem_type", "multi_label_classification"),)
    package, checkpoint = made(Recipe("bert", "text-classification", ("a", "b", "c"), settings))
    predicted = (torch.sigmoid(scored_by_torch(checkpoint, TEXTS)) >= 0.5).numpy()
    right = predicted ^ (np.random.default_rng(0).random(predicted.shape) < 0.3)
    rows = [
        {"text": text, "label": [name for name, yes in zip("abc", row, strict=True) if yes]}
        for text, row in zip(TEXTS, right, strict=True)
    ]
    found, _ = evaluated(package, rows, tmp_path)
    for average in ("macro", "micro", "weighted", "samples"):
        expected = sklearn.f1_score(right, predicted, average=average, zero_division=0)
        assert value(found, f"f1_{average}") == pytest.approx(expected)


def test_a_number_to_predict(made: Callable[..., Both], tmp_path: Path) -> None:
    package, checkpoint = made(Recipe("bert", "text-classification", ("score",), (("problem_type", "regression"),)))
    predicted = scored_by_torch(checkpoint, TEXTS)[:, 0].numpy()
    right = predicted + np.random.default_rng(0).normal(0, predicted.std(), len(TEXTS))
    rows = [{"text": text, "label": float(number)} for text, number in zip(TEXTS, right, strict=True)]
    found, _ = evaluated(package, rows, tmp_path)
    assert value(found, "pearson") == pytest.approx(np.corrcoef(right, predicted)[0, 1], rel=1e-5)


def first_tokens(checkpoint: Checkpoint, words: list[str]) -> list[str]:
    """As transformers' training scripts align words and tokens: each word's first token counts."""
    inputs = checkpoint.tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        labels = checkpoint.model(**inputs).logits[0].argmax(dim=-1).tolist()
    places = inputs.word_ids()
    return [NER_LABELS[labels[places.index(word)]] for word in range(len(words))]


def test_token_classification(made: Callable[..., Both], tmp_path: Path) -> None:
    package, checkpoint = made(Recipe("bert", "token-classification", tuple(NER_LABELS)))
    sentences = [sentence.split() for sentence in SENTENCES]
    predicted = [first_tokens(checkpoint, words) for words in sentences]
    right = [[tag if i % 3 else "O" for i, tag in enumerate(tags)] for tags in predicted]
    rows = [{"tokens": words, "ner_tags": tags} for words, tags in zip(sentences, right, strict=True)]
    found, predictions = evaluated(package, rows, tmp_path, "--column", "tags=ner_tags")
    assert [line["prediction"] for line in predictions] == predicted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("precision", "recall", "f1"):
            assert value(found, name) == pytest.approx(getattr(seqeval, f"{name}_score")(right, predicted))
        assert value(found, "accuracy") == pytest.approx(seqeval.accuracy_score(right, predicted))
    numbered = [{**row, "ner_tags": [NER_LABELS.index(tag) for tag in row["ner_tags"]]} for row in rows]
    assert evaluated(package, numbered, tmp_path, "--column", "tags=ner_tags")[0]["metrics"] == found["metrics"]


def test_tags_that_are_no_entities(made: Callable[..., Both], tmp_path: Path) -> None:
    package, _ = made(Recipe("bert", "token-classification", ("NOUN", "VERB", "X")))
    found, predictions = evaluated(package, [{"tokens": "a b c", "tags": "NOUN VERB X"}], tmp_path)
    hits = [a == b for a, b in zip(predictions[0]["prediction"], predictions[0]["tags"], strict=True)]
    assert value(found, "accuracy") == np.mean(hits)
    assert "f1_macro" in found["metrics"]


QUESTIONS = [
    ("Where does Sarah live?", SENTENCES[0], ["London", "in London"]),
    ("Who was read?", SENTENCES[2], ["George Orwell"]),
    ("What is the capital?", " ".join(SENTENCES * 4), ["Paris"]),
    ("What needs to be resolved?", SENTENCES[4], []),
]


def asked(answerable: bool) -> list[dict[str, Any]]:
    """As SQuAD has them in data sets."""
    return [
        {"id": str(i), "question": q, "context": c, "answers": {"text": a, "answer_start": [0] * len(a)}}
        for i, (q, c, a) in enumerate(QUESTIONS)
        if a or not answerable
    ]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # transformers, with numpy 2
@pytest.mark.parametrize("answerable", [True, False], ids=["SQuAD 1.1", "SQuAD 2.0"])
def test_question_answering(made: Callable[..., Both], tmp_path: Path, answerable: bool) -> None:
    package, checkpoint = made(Recipe("roberta", "question-answering"))
    rows = asked(answerable)
    found, predictions = evaluated(package, rows, tmp_path)
    pipeline = checkpoint.pipeline("question-answering", max_answer_len=30, handle_impossible_answer=not answerable)
    theirs = [pipeline(question=row["question"], context=row["context"])["answer"] for row in rows]
    assert [line["prediction"] for line in predictions] == theirs
    assert found["settings"]["handle_impossible_answer"] is not answerable
    examples = [
        SimpleNamespace(qas_id=row["id"], answers=[{"text": text} for text in row["answers"]["text"]]) for row in rows
    ]
    exact, f1 = squad_metrics.get_raw_scores(examples, {row["id"]: a for row, a in zip(rows, theirs, strict=True)})
    assert value(found, "exact_match") == pytest.approx(100 * np.mean(list(exact.values())))
    assert value(found, "f1") == pytest.approx(100 * np.mean(list(f1.values())))
    assert ("f1_none" in found["metrics"]) is not answerable


def test_a_context_without_an_answer(made: Callable[..., Both], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline finds no span at all."""
    package, _ = made(Recipe("roberta", "question-answering"))
    monkeypatch.setattr(question_answering, "likely_spans", lambda *_, **__: NO_SPANS)
    for count in (1, 2):
        result = evaluate(package, asked(answerable=True)[:count], threads=1)
        assert result.metrics["f1"].value == 0


NO_SPANS = Spans(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), 0.0)
PAIRS = [{"source": text, "target": [text[:30], text[10:]]} for text in SENTENCES]


@pytest.mark.parametrize(
    ("task", "hf_task", "options"),
    [
        ("translation", "translation_en_to_de", ["--max-new-tokens", 12]),
        ("summarization", "summarization", ["--max-new-tokens", 12]),
        ("text2text-generation", "text2text-generation", ["--max-new-tokens", 12, "--num-beams", 2]),
    ],
)
def test_texts_made_of_texts(
    made: Callable[..., Both], tmp_path: Path, task: str, hf_task: str, options: list[Any]
) -> None:
    package, checkpoint = made(text_checkpoints.t5)
    given = [] if task == "text2text-generation" else ["--task", task]
    found, predictions = evaluated(package, PAIRS, tmp_path, *given, *options)
    names = {"max_new_tokens": 12, **({"num_beams": 2} if task == "text2text-generation" else {})}
    pipeline = checkpoint.pipeline(hf_task, **names)
    theirs = [next(iter(pipeline(row["source"])[0].values())) for row in PAIRS]
    texts = [line["prediction"] for line in predictions]
    assert texts == [text.strip() for text in theirs]
    assert found["task"] == task
    streams = [list(stream) for stream in zip(*(row["target"] for row in PAIRS), strict=True)]
    if "bleu" in found["metrics"]:
        assert value(found, "bleu") == sacrebleu.corpus_bleu(texts, streams).score
        assert value(found, "chrf") == sacrebleu.corpus_chrf(texts, streams).score
        assert "tok:13a" in found["details"]["signatures"]["bleu"]
    if "rouge1" in found["metrics"]:
        scorer = rouge_scorer.RougeScorer(["rougeL"])
        scores = [scorer.score_multi(row["target"], t)["rougeL"] for row, t in zip(PAIRS, texts, strict=True)]
        assert value(found, "rougeL") == pytest.approx(np.mean([score.fmeasure for score in scores]))
    assert {"bleu", "chrf"} <= found["metrics"].keys() or task == "summarization"
    assert {"rouge1", "rouge2", "rougeL", "rougeLsum"} <= found["metrics"].keys() or task == "translation"


def test_languages(made: Callable[..., Both], tmp_path: Path) -> None:
    """Files of parallel texts, as sacrebleu takes them, and a model of many languages."""
    package, checkpoint = made(text_checkpoints.mbart)
    sources, targets = [text[:30] for text in SENTENCES], [text[10:40] for text in SENTENCES]
    (tmp_path / "en.txt").write_text("\n".join(sources) + "\n")
    (tmp_path / "de.txt").write_text("\n".join(targets) + "\n")
    files = ["--data", tmp_path / "en.txt", "--targets", tmp_path / "de.txt", "--predictions", tmp_path / "out.jsonl"]
    options = ["--src-lang", "en_XX", "--tgt-lang", "de_DE", "--num-beams", 2, "--max-new-tokens", 8]
    result = run(package, *files, *options, "--task", "translation", "--json")
    assert result.exit_code == 0, result.stderr
    texts = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    pipeline = checkpoint.pipeline("translation", src_lang="en_XX", tgt_lang="de_DE", num_beams=2, max_new_tokens=8)
    assert texts == [pipeline(text)[0]["translation_text"].strip() for text in sources]
    expected = sacrebleu.corpus_bleu(texts, [targets]).score
    assert json.loads(result.stdout)["metrics"]["bleu"]["value"] == expected


def test_batches_change_nothing(made: Callable[..., Both], tmp_path: Path) -> None:
    package, _ = made(CLASSIFIER)
    rows = [{"text": text, "label": 0} for text in TEXTS]
    results = [evaluated(package, rows, tmp_path, "--batch-size", size)[1] for size in (1, 4, 32)]
    assert [line["prediction"] for line in results[0]] == [line["prediction"] for line in results[1]]
    assert results[1] == results[2]


def test_the_limit(made: Callable[..., Both], tmp_path: Path) -> None:
    """What lies behind it is neither run nor checked."""
    package, _ = made(CLASSIFIER)
    rows = [{"text": text, "label": 0} for text in TEXTS[:3]] + [{"nothing": 1}]
    found, predictions = evaluated(package, rows, tmp_path, "--limit", 3)
    assert (found["data"]["examples"], len(predictions)) == (3, 3)


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"text": "a", "label": 0}, {"text": "b"}], [], "line 2: no column 'label', found text"),
        (
            [{"text": "a", "label": 0}, {"text": "b", "label": "good"}],
            [],
            "line 2: the label 'good' is none of the mod",
        ),
        ([{"text": "a", "label": 0}, {"text": " ", "label": 0}], [], "line 2: the text is empty"),
        ([{"text": "a " * CONTEXT, "label": 0}], [], "line 1: 130 tokens, and the model takes 128; cut such inputs"),
        ([], [], "the data is empty"),
        ([{"text": "a", "label": 0}], ["--column", "text"], "--column is 'text', expected ROLE=NAME"),
        ([{"text": "a", "label": 0}], ["--label", "x"], "--label is 'x', expected DATA=MODEL"),
        ([{"text": "a", "label": 0}], ["--limit", 0], "limit is 0, expected a whole number from 1"),
        ([{"text": "a", "label": 0}], ["--task", "perplexity"], "text-classification, and perplexity needs one for"),
        ([{"text": "a", "label": 0}], ["--task", "divergence"], "divergence needs a package or a checkpoint"),
        ([{"text": "a", "label": 0}], ["--num-beams", 2], "text-classification has no option 'num_beams'"),
        ([{"text": "a", "label": 0}], ["--join"], "join is for perplexity and divergence"),
        ([{"text": "a", "label": 0}], ["--positive", "good"], "positive: the model has no label 'good'"),
    ],
)
def test_one_line_about_what_is_wrong(
    made: Callable[..., Both], tmp_path: Path, rows: list[Any], arguments: list[Any], message: str
) -> None:
    package, _ = made(CLASSIFIER)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = tmp_path / "predictions.jsonl"
    result = run(package, "--data", data, "--predictions", predictions, *arguments)
    assert result.exit_code in (2, 3)
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, "and nothing has been run before it was found"
    assert not predictions.exists()


def test_longer_texts_are_cut_on_request(made: Callable[..., Both], tmp_path: Path) -> None:
    package, _ = made(CLASSIFIER)
    found, _ = evaluated(package, [{"text": "a " * CONTEXT, "label": 0}], tmp_path, "--truncation")
    assert found["settings"]["truncation"] is True


def test_in_python(made: Callable[..., Both]) -> None:
    package, _ = made(CLASSIFIER)
    result = evaluate(package, [{"text": text, "label": "neutral"} for text in TEXTS], threads=1)
    assert result.data["examples"] == len(TEXTS)
    assert 0 <= result.metrics["accuracy"].value <= 1


@pytest.mark.parametrize("task", ["fill-mask", "text-classification", "token-classification", "question-answering"])
def test_divergence_of_encoders(made: Callable[..., Both], tmp_path: Path, task: str) -> None:
    """From another checkpoint of that kind, against torch's own numbers."""
    labels = tuple(NER_LABELS) if task.endswith("classification") else ()
    package, ours = made(Recipe("bert", task, labels))
    _, theirs = made(Recipe("bert", task, labels, (("hidden_act", "relu"),)))
    rows = [{"question": text, "context": text[::-1]} if task.startswith("q") else {"text": text} for text in SENTENCES]
    found, _ = evaluated(package, rows, tmp_path, "--reference", theirs.path)
    divergences, same = [], []
    for row in rows:
        both = [torch_rows(checkpoint, row, task) for checkpoint in (theirs, ours)]
        p, q = (torch.log_softmax(rows.double(), dim=-1) for rows in both)
        divergences += (p.exp() * (p - q)).sum(dim=-1).tolist()
        same += (p.argmax(dim=-1) == q.argmax(dim=-1)).tolist()
    assert value(found, "kl_divergence") == pytest.approx(np.mean(divergences), rel=1e-4)
    assert value(found, "top1_agreement") == pytest.approx(np.mean(same))
    assert found["reference"]["precision"] == "fp32"


def torch_rows(checkpoint: Checkpoint, row: Mapping[str, str], task: str) -> torch.Tensor:
    inputs = checkpoint.tokenizer(*row.values(), return_tensors="pt", return_special_tokens_mask=True)
    special = inputs.pop("special_tokens_mask")[0].bool()
    with torch.no_grad():
        outputs = checkpoint.model(**inputs)
    if task == "question-answering":
        return torch.cat([outputs.start_logits, outputs.end_logits])
    if task == "text-classification":
        return torch.as_tensor(outputs.logits)
    return torch.as_tensor(outputs.logits[0][~special] if task == "token-classification" else outputs.logits[0])


def test_hidden_states_are_compared_by_their_angle(made: Callable[..., Both], tmp_path: Path) -> None:
    package, ours = made(Recipe("bert", "feature-extraction"))
    other, theirs = made(Recipe("bert", "feature-extraction", (), (("hidden_act", "relu"),)))
    found, _ = evaluated(package, [{"text": text} for text in SENTENCES], tmp_path, "--reference", other)
    cosines = []
    for text in SENTENCES:
        states = []
        for checkpoint in (ours, theirs):
            with torch.no_grad():
                states.append(checkpoint.model(**checkpoint.tokenizer(text, return_tensors="pt")).last_hidden_state[0])
        cosines += torch.cosine_similarity(*states, dim=-1).tolist()
    assert value(found, "cosine") == pytest.approx(np.mean(cosines), abs=1e-5)
    assert value(found, "cosine_min") == pytest.approx(min(cosines), abs=1e-5)


def sentence_encoder(path: Path) -> Checkpoint:
    checkpoint = Recipe("bert", "feature-extraction").make(path)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"path": f"{i}_{k}" if i else "", "type": f"sentence_transformers.models.{k}"} for i, k in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return checkpoint


def test_sentence_encoders_are_compared_by_their_vectors(made: Callable[..., Both], tmp_path: Path) -> None:
    """Line by line, with the package of their checkpoint and with the checkpoint itself; not with mere states."""
    package, checkpoint = made(sentence_encoder)
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES))
    for reference in (package, checkpoint.path):
        result = run(package, "--data", tmp_path / "lines.txt", "--reference", reference, "--json")
        assert result.exit_code == 0, result.stderr
        found = json.loads(result.stdout)
        assert value(found, "cosine_min") == pytest.approx(1, abs=1e-6)
        assert (found["data"]["examples"], found["details"]["rows"]) == (len(SENTENCES), len(SENTENCES))
    states, _ = made(Recipe("bert", "feature-extraction"))
    result = run(package, "--data", tmp_path / "lines.txt", "--reference", states)
    assert result.exit_code == 3
    assert "the package makes a vector of a text and the other one does not" in result.stderr
