"""The interpreter's end while a daemon thread is inside ONNX Runtime.

Python ends daemon threads as soon as they want to run Python again, by unwinding their stack; before Python 3.14 that
unwinding meets ONNX Runtime's C++ frames, which abort the process. So at the end no daemon thread may be inside: those
that are come out first, and those that want in wait until the process is gone.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from types import TracebackType

PATIENCE = 60.0  # seconds to wait for the calls that run; a chunk of a prompt or a model being loaded is the longest


class NativeCalls:
    """`with` around each call that lets other threads run Python meanwhile. Calls must not be nested."""

    def __init__(self) -> None:
        self._inside: set[int] = set()  # threads; only methods that are atomic
        self._ending = False
        self._never = threading.Lock()
        self._never.acquire()

    def __enter__(self) -> None:
        thread = threading.get_ident()
        self._inside.add(thread)  # before the question: `end` looks the other way round
        if self._ending:
            self._inside.discard(thread)
            if threading.current_thread().daemon:
                self._never.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inside.discard(threading.get_ident())

    def end(self) -> None:
        """Let no daemon thread in any more, and wait for those inside."""
        self._ending = True
        deadline = time.monotonic() + PATIENCE
        while self._inside - {threading.get_ident()} and time.monotonic() < deadline:
            time.sleep(0.001)

    def forget_others(self) -> None:
        """After a fork, in the child: its parent's other threads are not there."""
        self._inside.clear()


native = NativeCalls()
atexit.register(native.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=native.forget_others)
