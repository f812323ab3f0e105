"""An engine that is used by one call at a time, and never again with a cache that an error left half written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgellm.engines.cached import AnyEngine
from edgellm.engines.history import HeldRow
from edgellm.errors import SessionError


class EngineHolder:
    """Lends the engine of a session to one call at a time. `new_engine` makes one with an empty cache."""

    def __init__(self, new_engine: Callable[[], AnyEngine]) -> None:
        self._new_engine = new_engine
        self._busy = threading.Lock()
        self._engine: AnyEngine | None = new_engine()

    @property
    def engine(self) -> AnyEngine:
        """The engine, to be asked about what it holds. Raises SessionError after `close`."""
        if self._engine is None:
            raise SessionError("this session is closed; make another one with model.session()")
        return self._engine

    @property
    def row(self) -> HeldRow:
        """What the cache holds, possibly nothing; not to be changed."""
        rows = self.engine.history.rows
        return rows[0] if rows else HeldRow([], 0, False)

    @contextmanager
    def reading(self) -> Iterator[AnyEngine]:
        """The engine for a call that does not run it. Raises SessionError where another call has it."""
        if not self._busy.acquire(blocking=False):
            raise SessionError(
                "this session is in use by another call, or by a stream that is not at its end: close that one first, "
                "or fork() the session before"
            )
        try:
            yield self.engine
        finally:
            self._busy.release()

    @contextmanager
    def running(self) -> Iterator[AnyEngine]:
        """The engine for a call that runs it. After an error it is replaced; a stream that is closed between two steps
        leaves it whole."""
        with self.reading() as engine:
            try:
                yield engine
            except GeneratorExit:
                raise
            except BaseException:
                self._engine = self._new_engine()
                raise

    def empty(self) -> None:
        """Forget all that is held, and free its memory."""
        with self.reading():
            self._engine = self._new_engine()

    def close(self) -> None:
        """Have no engine any more."""
        if self._engine is not None:
            with self.reading():
                self._engine = None
