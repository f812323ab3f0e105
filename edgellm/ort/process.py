"""What becomes of loaded models when the process forks, and when it ends.

ONNX Runtime's threads do not survive a fork. A model that goes on in the child would run on one thread at best and wait
forever at worst, and so would a model that is merely freed there: ONNX Runtime waits for its threads to end.

Python ends daemon threads as soon as they want to run Python again, by unwinding their stack; before Python 3.14 that
unwinding meets ONNX Runtime's C++ frames, which abort the process. So at the end no daemon thread may be inside: those
that are come out first, and those that want in wait until the process is gone.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from types import TracebackType
from typing import NoReturn, Protocol

from edgellm.errors import ProviderError

PATIENCE = 60.0  # seconds to wait for the calls that run; a chunk of a prompt or a model being loaded is the longest


class Holder(Protocol):
    def leave_to_parent(self) -> None:
        """Called in the child: give up what belongs to the parent's threads."""


class LeftToParent:
    """What a holder has in the child in place of ONNX Runtime's object: any use of it is an error."""

    def __init__(self, original: object) -> None:
        """`original` is never freed from now on."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(original))

    def __getattr__(self, name: str) -> NoReturn:
        raise ProviderError(
            "this model was loaded before the process forked, and ONNX Runtime's threads do not survive a fork; "
            "load it in the child, or start children with multiprocessing's 'spawn'"
        )


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def remember(holder: Holder) -> None:
    """Have `holder` told in each child that this process forks."""
    _holders.add(holder)


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


def _after_fork() -> None:
    """In the child."""
    for holder in list(_holders):
        holder.leave_to_parent()
    _holders.clear()
    native.forget_others()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
