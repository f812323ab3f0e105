"""BLEU and chrF as sacrebleu has them, ROUGE as rouge-score has it, and exact matches. No model is needed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Any

from edgellm.errors import MissingDependencyError
from edgellm.evaluation.results import Findings, Metric, mean, share

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")

# Those of sacrebleu's tokenizers that bring their rules along; others would fetch a model.
BLEU_TOKENIZERS = ("13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab")


def check_libraries(scores: Sequence[str], bleu_tokenize: str) -> None:
    """Raises MissingDependencyError where one of the scores "bleu" and "rouge" could not be computed: to be asked
    before texts are generated for them."""
    if "bleu" in scores:
        try:
            library("sacrebleu.metrics").BLEU(tokenize=bleu_tokenize)
        except RuntimeError as error:
            extra = bleu_tokenize.partition("-")[0]
            raise MissingDependencyError(
                f"BLEU's tokenizer {bleu_tokenize} needs packages that are not installed; run "
                f"`pip install sacrebleu[{extra}]`"
            ) from error
    if "rouge" in scores:
        library("rouge_score.rouge_scorer")


def translation_scores(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], *, tokenize: str, lowercase: bool, bootstrap: int
) -> Findings:
    """BLEU and chrF, 0 to 100. targets: one or several for each prediction. bootstrap: resamples for the intervals, 0
    for none. The signatures say how to get the same numbers again."""
    metrics = library("sacrebleu.metrics")
    most = max(map(len, targets))
    streams = [[texts[i] if i < len(texts) else None for texts in targets] for i in range(most)]
    rounds = bootstrap if len(predictions) > 1 else 0  # there is nothing to resample of a single prediction
    bleu, bleu_score = _scored(
        lambda: metrics.BLEU(tokenize=tokenize, lowercase=lowercase), predictions, streams, rounds
    )
    chrf, chrf_score = _scored(lambda: metrics.CHRF(lowercase=lowercase), predictions, streams, rounds)
    return Findings(
        {"bleu": _metric(bleu_score), "chrf": _metric(chrf_score)},
        {
            "signatures": {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())},
            "bleu_precisions": list(bleu_score.precisions),
            "bleu_brevity_penalty": bleu_score.bp,
            "prediction_length": bleu_score.sys_len,
            "target_length": bleu_score.ref_len,
        },
    )


def _scored(
    new_scorer: Callable[[], Any], predictions: Sequence[str], streams: Sequence[Sequence[str | None]], rounds: int
) -> tuple[Any, Any]:
    """A scorer of sacrebleu and what it gives. Where sacrebleu fails to make an interval there is none: version 2.6
    cannot average resamples of which some score nothing (a TypeError)."""
    if rounds:
        scorer = new_scorer()
        with suppress(TypeError):
            return scorer, scorer.corpus_score(list(predictions), streams, n_bootstrap=rounds)
    scorer = new_scorer()
    return scorer, scorer.corpus_score(list(predictions), streams)


def summary_scores(predictions: Sequence[str], targets: Sequence[Sequence[str]], *, stemmer: bool) -> Findings:
    """ROUGE's F-measures, 0 to 1, as means over predictions. Where there are several targets, the best of them
    counts."""
    scorer = library("rouge_score.rouge_scorer").RougeScorer(list(ROUGE), use_stemmer=stemmer)
    scores = [scorer.score_multi(list(texts), text) for text, texts in zip(predictions, targets, strict=True)]
    details: dict[str, Any] = {
        name: {
            "precision": mean([score[name].precision for score in scores]).value,
            "recall": mean([score[name].recall for score in scores]).value,
        }
        for name in ROUGE
    }
    signature = f"stemmer:{'yes' if stemmer else 'no'}|version:{version('rouge-score')}"
    return Findings(
        {name: mean([score[name].fmeasure for score in scores], most=1) for name in ROUGE},
        {"signatures": {"rouge": signature}, **details},
    )


def exact_matches(predictions: Sequence[str], targets: Sequence[Sequence[str]]) -> Findings:
    """The share of predictions that are one of their targets, but for white space at the ends."""
    hits = [
        text.strip() in {target.strip() for target in texts} for text, texts in zip(predictions, targets, strict=True)
    ]
    return Findings({"exact_match": share(hits)})


def _metric(score: Any) -> Metric:
    if score._ci < 0:
        return Metric(float(score.score))
    return Metric(float(score.score), float(score._mean - score._ci), float(score._mean + score._ci))


def library(name: str) -> Any:
    """A module of the `eval` extra, imported when a score needs it. Raises MissingDependencyError."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise MissingDependencyError(
            f"this evaluation needs {package}, which is not installed ({error}); run `pip install edgellm[eval]`"
        ) from error
