"""One model for many requests at once.

with Engine(edgellm.load("smollm2-int8")) as engine:
    answers = [engine.submit(prompt, max_new_tokens=64) for prompt in prompts]
    print([answer.result().text for answer in answers])
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from edgellm.errors import InputError, MemoryBudgetError, OptionError, QueueFullError, ServingError
from edgellm.generation.call import Call, ChatArguments, Request
from edgellm.models.generative import GenerativeModel
from edgellm.serving.answer import Answer
from edgellm.serving.job import Job
from edgellm.serving.prefixes import PrefixCache
from edgellm.serving.scheduler import Limits, Scheduler
from edgellm.system.memory import available_memory_bytes
from edgellm.text.messages import Message
from edgellm.text.prompts import Prompt, is_single
from edgellm.text.tools import Tool

MAX_ROWS = 32  # sequences that are decoded together, where the caller does not say
MEMORY = 1 / 4  # of what is available, for keys and values, where the caller does not say
PREFIXES = 1 / 4  # of these, for the beginnings of prompts, but no more than
MOST_PREFIXES = 512 << 20  # bytes


@dataclass(frozen=True)
class EngineStats:
    """What an engine is doing, and what it has done since it began.

    `cache_bytes`: of the running rows' tokens and sources. `prompt_tokens` were asked for, `read_tokens` are those of
    prompts that have been read, of which `reused_tokens` were known from other requests. `preemptions`: how often a
    sequence made room for others, to be read again.
    """

    running: int
    waiting: int
    cache_bytes: int
    prefix_bytes: int
    steps: int
    prompt_tokens: int
    read_tokens: int
    reused_tokens: int
    new_tokens: int
    preemptions: int


class Engine:
    """Requests come and go at any step, and are decoded together: each gets what `generate` gives it alone, to the last
    bit with edgellm's kernels. It may be used from any thread; a thread of its own runs the model.

    max_rows: the most sequences (beams, samples) that are decoded together; others wait.
    max_cache_bytes: the most memory of keys and values, those of known beginnings of prompts and of sources included;
    None: a quarter of the memory that is available. An answer ends, as if its tokens were used up, where all of it is
    its own.
    max_waiting: the most requests that wait; another one is refused with QueueFullError. None: no limit.

    Raises OptionError. Closed with `close`, or as a context manager.
    """

    def __init__(
        self,
        model: GenerativeModel[Any],
        *,
        max_rows: int = MAX_ROWS,
        max_cache_bytes: int | None = None,
        max_waiting: int | None = None,
    ) -> None:
        _check_whole("max_rows", max_rows, 1)
        _check_whole("max_cache_bytes", max_cache_bytes, 1, or_none=True)
        _check_whole("max_waiting", max_waiting, 1, or_none=True)
        self.model = model
        self._max_waiting = max_waiting
        self._token_bytes = model.manifest.model.cache.bytes_per_token()
        budget = max_cache_bytes or int((available_memory_bytes() or 1 << 32) * MEMORY)
        prefix_bytes = min(int(budget * PREFIXES), MOST_PREFIXES)
        limits = _limits(model, max_rows, budget - prefix_bytes)
        self._scheduler = Scheduler(model.new_engine, limits, PrefixCache(prefix_bytes))
        self._new: list[Job] = []
        self._count = 0
        self._work = threading.Condition()
        self._closing = self._abandoning = False
        self._thread = threading.Thread(target=self._run, name="edgellm-engine", daemon=True)
        self._thread.start()

    def submit(self, prompt: Prompt, **options: Any) -> Answer:
        """Ask for a prompt (text or token ids; an encoder-decoder's source) to be continued, with the options of
        `generate`. Raises InputError, OptionError, MemoryBudgetError or QueueFullError."""
        if not is_single(prompt):
            raise InputError("submit takes one prompt; call it for each of a list")
        return self.submit_request(Request([prompt], options))

    def submit_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        **options: Any,
    ) -> Answer:
        """Ask for the assistant's answer to messages, with the options of `chat`."""
        return self.submit_request(
            Request(
                [messages],
                options,
                chat=ChatArguments(tools, template, template_variables, tool_choice, parallel_tool_calls),
            )
        )

    def submit_request(self, request: Request, *, keep: Collection[str] = ()) -> Answer:
        """`keep`: special tokens whose text the answer's pieces have, too."""
        call = self._fitted(self.model.read(request))
        answer = Answer(call, keep)
        job = Job(call.beginnings[0], answer, 0, self._source_tokens(call))
        with self._work:
            if self._closing:
                raise ServingError("the engine is closed: it takes no more requests")
            if self._max_waiting is not None and self._scheduler.waiting + len(self._new) >= self._max_waiting:
                raise QueueFullError(f"{self._max_waiting} requests are waiting already; try again later")
            self._count += 1
            job.number = self._count
            self._new.append(job)
            self._work.notify()
        return answer

    @property
    def most_at_once(self) -> int | None:
        """How many requests it can hold, those that run included; another one is refused. None: no limit."""
        return None if self._max_waiting is None else self._max_waiting + self._scheduler.limits.rows

    @property
    def stats(self) -> EngineStats:
        scheduler, counts = self._scheduler, self._scheduler.counts
        return EngineStats(
            running=scheduler.running,
            waiting=scheduler.waiting + len(self._new),
            cache_bytes=scheduler.cache_tokens * self._token_bytes,
            prefix_bytes=scheduler.prefixes.nbytes,
            steps=counts.steps,
            prompt_tokens=counts.prompt_tokens,
            read_tokens=counts.read_tokens,
            reused_tokens=counts.reused_tokens,
            new_tokens=counts.new_tokens,
            preemptions=counts.preemptions,
        )

    def close(self, *, finish: bool = True) -> None:
        """Take no more requests, and end the thread: when all have their answers, or at once, as `end_answers` does."""
        if not finish:
            self.end_answers()
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join()

    def end_answers(self) -> None:
        """Take no more requests, and end those that run with what there is, as if they were cancelled. Those that have
        not begun fail with ServingError. Returns before it has happened."""
        with self._work:
            self._closing = self._abandoning = True
            self._work.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=kind is None)

    def _fitted(self, call: Call) -> Call:
        """The call, with no more new tokens than memory has room for. Raises OptionError or MemoryBudgetError where it
        does not fit by itself."""
        (beginning,) = call.beginnings
        options, limits = beginning.plan.options, self._scheduler.limits
        if call.window is not None:
            raise OptionError('overflow is "shift", which is for one sequence by itself; use generate or a session')
        if options.rows > limits.rows:
            raise OptionError(
                f"the request has {options.rows} beams or samples, expected at most the engine's {limits.rows} rows"
            )
        begins_with = len(beginning.prompt) + self._source_tokens(call)
        room = limits.tokens // options.rows - begins_with
        if room < 1:
            raise MemoryBudgetError(
                f"the request's {options.rows} rows begin with {begins_with} tokens each, and the engine's "
                f"memory holds {limits.tokens}; shorten the prompt, or raise max_cache_bytes"
            )
        fitted = replace(beginning, max_new_tokens=min(beginning.max_new_tokens, room))
        return replace(call, beginnings=[fitted])

    def _source_tokens(self, call: Call) -> int:
        """How many of a target's tokens take the memory of the call's source."""
        source = call.beginnings[0].source
        return 0 if source is None else self.model.manifest.model.source_tokens(len(source))

    def _run(self) -> None:
        """The thread's work."""
        while True:
            with self._work:
                self._work.wait_for(lambda: self._new or self._closing or not self._scheduler.idle)
                new, self._new = self._new, []
                if self._closing and not new and self._scheduler.idle:
                    return
            try:
                for job in new:
                    self._scheduler.add(job)
                if self._abandoning:
                    self._scheduler.stop_all(ServingError("the engine was closed before the request's turn came"))
                self._scheduler.step()
            except Exception as error:  # those who wait must not wait for ever
                if not self._failed(error):
                    return

    def _failed(self, error: Exception) -> bool:
        """End all jobs with an error. Whether others may come: not where there can be no new engine."""
        try:
            self._scheduler.fail_all(error)
        except Exception as worse:
            with self._work:
                self._closing = True
                new, self._new = self._new, []
            for job in new:
                job.fail(worse)
            return False
        return True


def _limits(model: GenerativeModel[Any], max_rows: int, budget: int) -> Limits:
    """Of a cache of so many bytes, at most half of which is what rows take besides their tokens."""
    layout = model.manifest.model.cache
    row_bytes = layout.bytes_per_row()
    rows = max_rows if not row_bytes else max(1, min(max_rows, budget // (2 * row_bytes)))
    return Limits(rows, max(0, budget - rows * row_bytes) // max(1, layout.bytes_per_token()))


def _check_whole(name: str, value: Any, least: int, *, or_none: bool = False) -> None:
    if (value is None and or_none) or (type(value) is int and value >= least):
        return
    raise OptionError(f"{name} is {value!r}, expected a whole number from {least}{', or None' if or_none else ''}")
