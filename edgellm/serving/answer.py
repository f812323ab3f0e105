"""What a request gets: its text as it grows, and its result, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from edgellm.decoding import Emitted, Hypothesis
from edgellm.generation.call import Call
from edgellm.generation.results import Generation, Piece, Timing
from edgellm.generation.run import cleaned_up, piece, sequences
from edgellm.text.tokenizer import Detokenizer
from edgellm.types import TokenArray


class Answer:
    """A request that was submitted. `result` waits for its end; iterating gives its pieces as `Model.stream` does, with
    `for` or with `async for`; `await` gives the result. All may be used at once, from any thread.

    An answer that nobody waits for any more should be told: `cancel`.
    """

    def __init__(self, call: Call, keep: Collection[str] = ()) -> None:
        """`keep`: special tokens whose text is a part of the pieces', as a `Detokenizer` has them."""
        (self._beginning,) = call.beginnings
        self._call = call
        self._started = time.perf_counter()
        self._first_token: float | None = None
        clean_up = cleaned_up(self._beginning)
        self._detokenizers = [
            Detokenizer(call.tokenizer, clean_up=clean_up, keep=keep) for _ in range(self._beginning.plan.num_sequences)
        ]
        self._cancelled = threading.Event()
        self._future: Future[Generation] = Future()
        self._future.set_running_or_notify_cancel()  # those who wait for it cannot cancel it; `cancel` does
        self._pieces: list[tuple[int, Piece]] = []  # and the number of the sequence that each belongs to
        self._news = threading.Condition()
        self._callbacks: list[Callable[[], None]] = []  # at each piece, and at the end

    def result(self, timeout: float | None = None) -> Generation:
        """Raises what made the request fail, or TimeoutError after so many seconds."""
        return self._future.result(timeout)

    @property
    def prompt(self) -> TokenArray:
        """The tokens that it is behind."""
        return self._beginning.prompt

    def cancel(self) -> None:
        """End it with what there is: its finish_reason is "cancelled", unless it has ended before."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        return self._future.done()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Have `callback` called at the end, in the engine's thread, or now if it is over: it should be short."""
        self._future.add_done_callback(lambda _: callback())

    def __iter__(self) -> Iterator[Piece]:
        """The pieces of the only sequence. Raises OptionError where there are several, or beams."""
        self._call.check_streamable()
        return (found for _, found in self.numbered())

    def __aiter__(self) -> AsyncIterator[Piece]:
        self._call.check_streamable()
        return (found async for _, found in self.numbered_async())

    def __await__(self) -> Generator[Any, None, Generation]:
        return asyncio.wrap_future(self._future).__await__()

    def numbered(self) -> Iterator[tuple[int, Piece]]:
        """The pieces of all sequences, each with the number of its own. Beams have none."""
        told = 0
        while True:
            with self._news:
                while len(self._pieces) == told and not self.done:
                    self._news.wait()
                new = self._pieces[told:]
            if not new:
                self.result()
                return
            yield from new
            told += len(new)

    async def numbered_async(self) -> AsyncIterator[tuple[int, Piece]]:
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(news.set)

        with self._news:
            self._callbacks.append(tell)
        told = 0
        try:
            while True:
                news.clear()
                with self._news:
                    new, done = self._pieces[told:], self.done
                for found in new:
                    yield found
                told += len(new)
                if done and not new:
                    self.result()
                    return
                if not new:
                    await news.wait()
        finally:
            with self._news:
                self._callbacks.remove(tell)

    # What the scheduler tells: see `edgellm.serving.job.Listener`

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set() or (self._call.cancelled is not None and self._call.cancelled())

    def hear(self, emitted: Emitted) -> None:
        self._first_token = self._first_token or time.perf_counter()
        self._tell((emitted.number, piece(emitted, self._detokenizers[emitted.number], 0)))

    def finish(self, hypotheses: Sequence[Hypothesis]) -> None:
        for number, (found, detokenizer) in enumerate(zip(hypotheses, self._detokenizers, strict=False)):
            if found.finish_reason in ("cancelled", "time") and not self._has_ended(number):
                self._tell((number, Piece(detokenizer.flush(), (), None, found.finish_reason, complete=found.complete)))
        generation = Generation(
            sequences(hypotheses, self._beginning, self._call.tokenizer),
            len(self._beginning.made_of),
            self._timing(sum(len(found.tokens) for found in hypotheses)),
            self._call.dropped[0],
        )
        self._end(lambda: self._future.set_result(generation))

    def fail(self, error: Exception) -> None:
        self._end(lambda: self._future.set_exception(error))

    def _tell(self, numbered: tuple[int, Piece]) -> None:
        with self._news:
            self._pieces.append(numbered)
            self._wake()

    def _end(self, settle: Callable[[], None]) -> None:
        with self._news:
            settle()
            self._wake()

    def _wake(self) -> None:
        self._news.notify_all()
        for callback in self._callbacks:
            callback()

    def _has_ended(self, number: int) -> bool:
        """Whether a sequence's last piece was told."""
        return any(of == number and found.finish_reason for of, found in reversed(self._pieces))

    def _timing(self, new_tokens: int) -> Timing:
        end = time.perf_counter()
        first = (self._first_token or end) - self._started
        return Timing(first, end - self._started, len(self._beginning.made_of), new_tokens)
