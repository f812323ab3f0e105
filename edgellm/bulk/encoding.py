"""Lines that an encoder answers, many in a run: vectors, or labels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.bulk.forms import Form, failure
from edgellm.bulk.lines import Classified, Embedded, Line, Outcome, is_passing
from edgellm.errors import InputError, TaskError
from edgellm.models.encoder import EncoderModel
from edgellm.pipelines import pipeline
from edgellm.text.tokenizer import no_tokenizer

GROUP = 64  # texts that are taken together; the model sorts them by length
PAUSE_S = 1.0  # before a line is tried a third time; twice as long before each further one

Encode = Callable[[Sequence[Any]], list[Any]]  # a result for each of some texts


@dataclass(frozen=True)
class Waiting:
    """A line and its texts."""

    line: Line
    inputs: Sequence[Any]


class Encoding:
    """Answers lines by what `encode` makes of their texts. Several runs at the same time take turns.

    `window`: lines for which it is worth to be at hand. `portion`: how many are best given at once.
    """

    tokens = (0, 0)  # nothing is under way between two looks
    window, portion = 2 * GROUP, GROUP

    def __init__(self, form: Form, encode: Encode, retries: int) -> None:
        self._form, self._encode_now, self._retries = form, encode, retries
        self._turn = threading.Lock()

    def run(self, lines: Iterator[Line]) -> Generator[Outcome | None]:
        """The outcomes as they come."""
        group: list[Waiting] = []
        for line in lines:
            try:
                if line.problem:
                    raise InputError(line.problem)
                group.append(Waiting(line, self._form.ask(line).inputs))
            except Exception as error:
                yield failure(line, error)
            if sum(len(each.inputs) for each in group) >= GROUP:
                yield from self._outcomes(group)
                group = []
        yield from self._outcomes(group)

    def _outcomes(self, group: Sequence[Waiting]) -> Iterator[Outcome]:
        """Of lines that run together. Where that fails, each half runs by itself, so that one bad line spoils few."""
        if len(group) == 1:
            yield self._alone(group[0])
        if len(group) <= 1:
            return
        try:
            results = iter(self._encode([one for each in group for one in each.inputs]))
        except Exception:
            middle = len(group) // 2
            yield from self._outcomes(group[:middle])
            yield from self._outcomes(group[middle:])
            return
        for each in group:
            yield self._answered(each, [next(results) for _ in each.inputs])

    def _encode(self, texts: Sequence[Any]) -> list[Any]:
        with self._turn:
            return self._encode_now(texts)

    def _alone(self, each: Waiting) -> Outcome:
        for tries in range(self._retries + 1):
            if tries > 1:
                time.sleep(PAUSE_S * 2 ** (tries - 2))
            try:
                return self._answered(each, self._encode(each.inputs))
            except Exception as error:
                if tries == self._retries or not is_passing(error):
                    return failure(each.line, error)
        raise AssertionError("a line has at least one try")

    def _answered(self, each: Waiting, results: Sequence[Any]) -> Outcome:
        try:
            answer = self._form.answer(each.line, results, ())
        except InputError as error:
            return failure(each.line, error)
        return Outcome(each.line, answer, None, 200, sum(result.tokens for result in results))


def embedding(model: EncoderModel, *, prompt_name: str | None, truncation: bool) -> Encode:
    """Vectors, as `EncoderModel.embed` makes them. Raises TaskError or OptionError for a package that has none so."""
    facts = model.manifest.model.embedding
    if facts is None:
        raise TaskError(f"{model.info.path} is of no sentence encoder: it does not say how to make a vector of a text")
    before = facts.before(None, prompt_name)

    def encode(texts: Sequence[Any]) -> list[Embedded]:
        read = [_encoding(model, before + text) if isinstance(text, str) else text for text in texts]
        vectors = model.embed(read, prompt="", truncation="longest_first" if truncation else None)
        return [
            Embedded(vector.tolist(), min(len(one), facts.max_tokens))
            for vector, one in zip(vectors, read, strict=True)
        ]

    return encode


def classification(model: EncoderModel, *, truncation: bool) -> Encode:
    """Labels, as the pipeline gives them."""
    pipe = pipeline("text-classification", model, truncation=truncation, batch_size=GROUP)

    def encode(texts: Sequence[Any]) -> list[Classified]:
        found = pipe(list(texts), top_k=1)
        return [
            Classified(best["label"], best["score"], _length(model, text))
            for (best,), text in zip(found, texts, strict=True)
        ]

    return encode


def _encoding(model: EncoderModel, text: str) -> Any:
    if model.tokenizer is None:
        raise no_tokenizer(instead="give token ids, in OpenAI's form")
    return model.tokenizer.encoding(text)


def _length(model: EncoderModel, text: Any) -> int:
    """The tokens of a text, or of a pair of texts: how much work it was."""
    assert model.tokenizer is not None
    one, pair = (text, None) if isinstance(text, str) else (text["text"], text["text_pair"])
    return min(len(model.tokenizer.encoding(one, pair)), model.manifest.context_length)
