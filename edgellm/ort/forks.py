"""What a child process, made by a fork, does with the models that its parent had loaded.

ONNX Runtime's threads do not survive a fork. A model that goes on in the child would run on one thread at best and wait
forever at worst, and so would a model that is merely freed there: ONNX Runtime waits for its threads to end.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import NoReturn, Protocol

from edgellm.errors import ProviderError


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


def _leave_all_to_parent() -> None:
    for holder in list(_holders):
        holder.leave_to_parent()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
