"""Lines that a model answers by generating: many at a time, by continuous batching."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgellm.bulk.forms import Form, failure
from edgellm.bulk.lines import Ask, Chatted, Line, Outcome, is_passing
from edgellm.bulk.openai import merged, without_stop
from edgellm.decoding import GenerationOptions
from edgellm.errors import InputError, OptionError
from edgellm.generation.call import ChatArguments, Request
from edgellm.models.decoder import Model
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.serving import Answer, Engine
from edgellm.text.answers import AnswerFormat, answer_of
from edgellm.text.prompts import prompt_end
from edgellm.text.tokenizer import Detokenizer

AHEAD = 4  # lines that are read, for each that is decoded: the engine always has the next one at hand
TICK_S = 0.25  # without news
PAUSE_S = 1.0  # before a line is tried a third time; twice as long before each further one


@dataclass(frozen=True)
class Settings:
    """How the lines of a batch are answered. `options`: those of generation. `retries`: how often a line is tried again
    that failed for a passing cause."""

    options: Mapping[str, Any]
    max_rows: int
    max_cache_bytes: int | None
    retries: int


@dataclass(eq=False)
class Attempt:
    """A line on its way. `left`: how many of its answers are not there yet."""

    line: Line
    ask: Ask
    tries: int = 0
    left: int = 0
    answers: Sequence[Answer] = ()


class Generating:
    """Answers lines through an engine of its own, which lives as long as `run`; or, where it is `standing`, through one
    for all runs, which may be at the same time.

    `window`: lines that one run has at hand. `portion`: how many are best given at once.
    """

    def __init__(
        self, model: Model | EncoderDecoderModel, form: Form, settings: Settings, *, standing: bool = False
    ) -> None:
        """Raises OptionError for options that no line could have."""
        self.settings = settings
        self._model, self._form = model, form
        settled = GenerationOptions.create(model.generation_defaults, **settings.options)
        if settled.overflow == "shift":
            raise OptionError('overflow is "shift", which is for one sequence by itself; use "truncate"')
        if form.columns is not None and settled.num_return_sequences != 1:
            raise OptionError(
                f"num_return_sequences is {settled.num_return_sequences}, and a row has room for one answer; leave it "
                'out, or write lines as OpenAI has them, with "n"'
            )
        # A line's seconds begin when it is read: where they are limited it does not wait for others to end.
        self.window = settings.max_rows * (1 if settled.max_time is not None else AHEAD)
        self.portion = settings.max_rows
        self._standing = self._engine = self._new_engine() if standing else None

    @property
    def tokens(self) -> tuple[int, int]:
        if self._engine is None:
            return 0, 0
        stats = self._engine.stats
        return stats.read_tokens, stats.new_tokens

    def run(self, lines: Iterator[Line]) -> Generator[Outcome | None]:
        engine = self._engine = self._standing or self._new_engine()
        flight = _Flight(self, engine, lines)
        try:
            yield from flight.outcomes()
        finally:
            flight.cancel()
            if engine is not self._standing:
                engine.close(finish=False)

    def _new_engine(self) -> Engine:
        settings = self.settings
        return Engine(self._model, max_rows=settings.max_rows, max_cache_bytes=settings.max_cache_bytes)

    def ask(self, line: Line) -> Ask:
        """Raises InputError."""
        if line.problem:
            raise InputError(line.problem)
        ask = self._form.ask(line)
        if ask.chat is not None and isinstance(self._model, EncoderDecoderModel):
            raise InputError(
                "the line has messages, and this package turns one text into another; give the text as a prompt"
            )
        return replace(ask, options=merged(self.settings.options, ask.options))

    def requests(self, ask: Ask) -> list[Request]:
        return [Request([one], ask.options, chat=ask.chat) for one in ask.inputs]

    def outcome(self, line: Line, ask: Ask, answers: Sequence[Answer]) -> Outcome:
        """Raises what made one of the answers fail."""
        generations = [answer.result() for answer in answers]
        stops = (
            ask.options.get("stop")
            or ask.options.get("stop_strings")
            or self._model.generation_defaults.get("stop_strings")
            or ()
        )
        stops = (stops,) if isinstance(stops, str) else stops
        results: Sequence[Any] = generations
        if ask.chat is not None and self._form.columns is None:
            results = [self._chatted(answer, ask.chat, stops) for answer in answers]
        answer = self._form.answer(line, results, stops)
        new = sum(len(sequence.tokens) for generation in generations for sequence in generation.sequences)
        return Outcome(line, answer, None, 200, sum(one.prompt_tokens for one in generations), new)

    def _chatted(self, answer: Answer, chat: ChatArguments, stops: Sequence[str]) -> Chatted:
        """The answer, read in the format of the model's chat template."""
        model = self._model
        assert isinstance(model, Model)
        assert model.tokenizer is not None
        form = AnswerFormat.of(model.chat_template.source(tools=chat.told_tools))
        prompt, parts = prompt_end(answer.prompt, model.tokenizer), []
        for sequence in answer.result().sequences:
            parser = form.parser(tools=chat.told_tools, prompt=prompt)
            clean_up = None if sequence.complete is None else False  # as its text is
            detokenizer = Detokenizer(model.tokenizer, clean_up=clean_up, keep=parser.markers)
            text = "".join(map(detokenizer.add, sequence.tokens)) + detokenizer.flush()
            events = parser.add(without_stop(sequence, stops, text))
            parts.append(answer_of([*events, *parser.finish()]))
        return Chatted(answer.result(), parts)


class _Flight:
    """One run. A line that is tried again is the only one of its run in the engine: whatever had taken the memory, or
    made all lines fail, is then not there."""

    def __init__(self, work: Generating, engine: Engine, lines: Iterator[Line]) -> None:
        self._work, self._engine, self._lines = work, engine, lines
        self._flying: set[Attempt] = set()
        self._again: deque[Attempt] = deque()
        self._news: queue.SimpleQueue[Attempt] = queue.SimpleQueue()  # an attempt, for each of its answers that ended

    def outcomes(self) -> Iterator[Outcome | None]:
        while True:
            yield from self._begin()
            if not self._flying:
                return
            yield self._end_next()

    def cancel(self) -> None:
        """Drop what is under way."""
        for attempt in self._flying:
            for answer in attempt.answers:
                answer.cancel()

    def _begin(self) -> Iterator[Outcome]:
        """Submit lines while there is room for them; what comes back are those that fail at that."""
        while self._again and not self._flying:
            yield from self._submit(self._again.popleft())
        while not self._again and len(self._flying) < self._work.window:
            line = next(self._lines, None)
            if line is None:
                return
            try:
                attempt = Attempt(line, self._work.ask(line))
            except Exception as error:
                yield failure(line, error)
            else:
                yield from self._submit(attempt)

    def _submit(self, attempt: Attempt) -> Iterator[Outcome]:
        if attempt.tries > 1:
            time.sleep(PAUSE_S * 2 ** (attempt.tries - 2))
        attempt.tries += 1
        answers: list[Answer] = []
        try:
            for request in self._work.requests(attempt.ask):
                answers.append(self._engine.submit_request(request))
        except Exception as error:  # one line must not keep the others from their answers
            for answer in answers:
                answer.cancel()
            yield failure(attempt.line, error)
            return
        attempt.answers, attempt.left = answers, len(answers)
        self._flying.add(attempt)
        for answer in answers:
            answer.when_done(lambda: self._news.put(attempt))

    def _end_next(self) -> Outcome | None:
        """Wait for an answer; the outcome of its line where it was the last one of it."""
        try:
            attempt = self._news.get(timeout=TICK_S)
        except queue.Empty:
            return None
        attempt.left -= 1
        if attempt.left:
            return None
        self._flying.remove(attempt)
        try:
            return self._work.outcome(attempt.line, attempt.ask, attempt.answers)
        except Exception as error:
            if is_passing(error) and attempt.tries <= self._work.settings.retries:
                self._again.append(attempt)
                return None
            return failure(attempt.line, error)
