"""edgellm run: a task by name on texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import edgellm
from edgellm.commands.options import (
    STDIN,
    chosen,
    decode,
    generation_options,
    package_argument,
    read_text,
    with_options,
)
from edgellm.errors import InputError

# Names and meanings are those of the pipelines' options.
TASK_OPTIONS = [
    click.option("--context", help='question-answering: where the answers are; "-" reads it from standard input.'),
    click.option("--text-pair", help="text-classification: the second text of a pair."),
    click.option("--candidate-labels", help="zero-shot-classification: the labels, with commas between them."),
    click.option("--hypothesis-template", help="zero-shot-classification: a sentence with {} for the label."),
    click.option("--multi-label", is_flag=True, default=None, help="zero-shot-classification: several may be right."),
    click.option("--aggregation-strategy", help="ner: none, simple, first, average or max: tokens to entities."),
    click.option("--stride", type=int, help="ner: read long texts in windows with so many tokens in common."),
    click.option("--targets", multiple=True, help="fill-mask: only this word. May be repeated."),
    click.option("--function-to-apply", help="text-classification: softmax, sigmoid or none."),
    click.option("--doc-stride", type=int, help="question-answering: tokens that windows have in common."),
    click.option("--max-seq-len", type=int, help="question-answering: most tokens of a window and the question."),
    click.option("--max-answer-len", type=int, help="question-answering: most tokens of an answer."),
    click.option(
        "--handle-impossible-answer", is_flag=True, default=None, help="question-answering: there may be no answer."
    ),
    click.option("--src-lang", help="translation: the language of the text."),
    click.option("--tgt-lang", help="translation: the language to translate to."),
    click.option("--truncation", is_flag=True, default=None, help="Cut texts that are too long for the model."),
    click.option("--prefix", help="text-generation: put this before every text."),
    click.option(
        "--return-full-text/--no-return-full-text", default=None, help="text-generation: the text itself as well."
    ),
]


@click.command()
@click.argument("task")
@package_argument
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@with_options(TASK_OPTIONS)
@generation_options
@click.option("--json", "as_json", is_flag=True, help="Print each result as one line of JSON.")
def run(
    task: str,
    package: Path,
    texts: tuple[str, ...],
    as_json: bool,
    context: str | None,
    text_pair: str | None,
    **arguments: Any,
) -> None:
    """Do TASK with the package PKG, on each TEXT.

    Tasks: text-generation, text2text-generation, summarization, translation (or translation_xx_to_yy), fill-mask,
    text-classification (or sentiment-analysis), token-classification (or ner), question-answering, feature-extraction,
    sentence-similarity (of the first TEXT with the others), text-ranking (of the others, for the first TEXT as query),
    zero-shot-classification, automatic-speech-recognition (of files, WAV or FLAC).

    TEXT "-" reads standard input (UTF-8), a text per line. --top-k is also how many answers, labels or words to give.
    """
    options = chosen(arguments)
    if "targets" in options:
        options["targets"] = list(options["targets"])
    if context == STDIN and STDIN in texts:
        raise InputError("only one of TEXT and --context can be read from standard input")
    pipe = edgellm.pipeline(task, package, **options)
    together = task in ("sentence-similarity", "text-ranking")
    inputs = inputs_of(texts, context=context, text_pair=text_pair, together=together)
    if task == "text-ranking":
        inputs = ({"query": one["source_sentence"], "documents": one["sentences"]} for one in inputs)
    several = False
    for one in inputs:
        result = pipe(one)
        if as_json:
            click.echo(json.dumps(result, ensure_ascii=False))
            continue
        lines = list(lines_of(result, one))
        if several and len(lines) > 1:
            click.echo()
        click.echo("\n".join(lines))
        several = True


def inputs_of(texts: Sequence[str], *, context: str | None, text_pair: str | None, together: bool) -> Iterator[Any]:
    """What the pipeline gets, one after the other: each text, alone or with the context or its pair, or all as one."""
    if together:
        source, *others = _each(texts)
        yield {"source_sentence": source, "sentences": others}
        return
    where = None if context is None else read_text(context)
    for text in _each(texts):
        if where is not None:
            yield {"question": text, "context": where}
        else:
            yield text if text_pair is None else {"text": text, "text_pair": text_pair}


def lines_of(result: Any, given: Any = None) -> Iterator[str]:
    """A result as text: each record is a line of its values with tabs between them; an empty line stands between groups
    of records."""
    if isinstance(result, dict) and {"labels", "scores"} <= result.keys():  # zero-shot-classification
        yield from (_line([score, label]) for score, label in zip(result["scores"], result["labels"], strict=True))
    elif isinstance(given, dict) and "sentences" in given:
        yield from (_line([score, text]) for score, text in zip(result, given["sentences"], strict=True))
    elif isinstance(result, dict):
        yield _line(result.values())
    elif result and isinstance(result[0], list) and isinstance(result[0][0], list):  # feature-extraction
        yield from (_line(token) for token in result[0])
    elif result and isinstance(result[0], list):
        for number, group in enumerate(result):
            yield from [""] * (number > 0)
            yield from lines_of(group)
    else:
        for record in result:
            yield from lines_of(record)


def _each(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if text == STDIN:
            yield from (decode(line).rstrip("\r\n") for line in sys.stdin.buffer)
        else:
            yield text


def _line(values: Iterable[Any]) -> str:
    return "\t".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in values)
