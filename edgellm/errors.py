"""Every error edgellm raises on purpose.

    EdgellmError
    ├── PackageError(ValueError)                   the package directory
    │   ├── PackageNotFoundError(FileNotFoundError)
    │   ├── PackageVersionError                    written by a newer edgellm
    │   ├── TaskError                              a package for another task than the one asked for
    │   └── PackageCorruptError                    a file is missing, changed or points outside
    ├── CheckpointError(ValueError)                what is being exported
    │   ├── CheckpointNotFoundError(FileNotFoundError)
    │   ├── UnsupportedModelError                  architecture or feature edgellm does not build
    │   └── TensorError                            tensors missing, unused, or of the wrong shape or type
    ├── ExportError(RuntimeError)                  the export itself
    │   ├── OutputExistsError(FileExistsError)
    │   ├── OutOfSpaceError(OSError)
    │   └── QualityGateError                       the exported model is not close enough to the original
    ├── OptionError(ValueError)                    generation options
    ├── InputError(ValueError)                     prompts, messages, token ids
    │   ├── ContextOverflowError                   more tokens than the model's context
    │   │   └── MemoryBudgetError                  more tokens than a session's memory budget holds
    │   ├── FieldError                             a field of a request's body
    │   └── ChatTemplateError
    ├── ServingError(RuntimeError)                 an engine that is closed
    │   └── QueueFullError                         as many requests wait as may
    ├── BatchError(RuntimeError)                   a batch of lines: its files, or another process at them
    │   └── JournalMismatchError                   the journal is of another input, package or options
    ├── SessionError(RuntimeError)                 a session that is closed, in use, or cannot do this
    ├── SessionFileError(ValueError)               the file of a saved session
    │   ├── SessionNotFoundError(FileNotFoundError)
    │   ├── SessionVersionError                    written by a newer edgellm
    │   ├── SessionMismatchError                   of another model, tokenizer or kind of cache
    │   ├── SessionCorruptError                    cut off, changed, or no such file at all
    │   └── SessionWriteError(OSError)             the disk is full, or the path cannot be written
    ├── ProviderError(RuntimeError)                ONNX Runtime, devices, memory
    │   └── OutOfMemoryError(MemoryError)          the model and its caches are left usable
    └── MissingDependencyError(ImportError)        an extra that is not installed

Each is also the matching builtin, so callers may catch either. A message says what was wrong, what was found, what
was expected and what to do. `exit_code` is what the command line returns for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

MAX_MESSAGE = 10_000  # characters


class EdgellmError(Exception):
    """Base of all errors that edgellm raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """What a file's content brings into a message cannot steer a terminal, nor fail to be printed."""
        return _printable(super().__str__())


class PackageError(EdgellmError, ValueError):
    """The package directory cannot be used."""

    exit_code = 3


class PackageNotFoundError(PackageError, FileNotFoundError):
    """There is no package at that path."""


class PackageVersionError(PackageError):
    """The package was written by a newer edgellm."""


class TaskError(PackageError):
    """The package is for another task than the one asked for."""


class PackageCorruptError(PackageError):
    """A file of the package is missing, changed, or points outside the package."""


class CheckpointError(EdgellmError, ValueError):
    """The checkpoint to export cannot be read."""

    exit_code = 4


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint at that path or hub id."""


class UnsupportedModelError(CheckpointError):
    """The architecture, or a feature that the config asks for, is not one edgellm builds."""


class TensorError(CheckpointError):
    """Tensors are missing, unused, or have an unexpected shape or type."""


class ExportError(EdgellmError, RuntimeError):
    """The export failed."""

    exit_code = 5


class OutputExistsError(ExportError, FileExistsError):
    """The output path is taken and --force was not given."""


class OutOfSpaceError(ExportError, OSError):
    """The disk is full, or the output cannot be written."""


class QualityGateError(ExportError):
    """The exported model is further from the original than its precision allows."""

    exit_code = 6


class OptionError(EdgellmError, ValueError):
    """A generation option, or a combination of options, is invalid."""

    exit_code = 2


class InputError(EdgellmError, ValueError):
    """A prompt, a message list or token ids are invalid."""

    exit_code = 2


class FieldError(InputError):
    """A field of a body in OpenAI's form is not what it may be. `param`: its name. `code`: OpenAI's, where it has
    one."""

    def __init__(self, message: str, param: str | None, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code


class ContextOverflowError(InputError):
    """The prompt and the tokens asked for do not fit in the model's context."""


class MemoryBudgetError(ContextOverflowError):
    """The prompt does not fit in the memory that a session may use."""


class ChatTemplateError(InputError):
    """The chat template is missing, fails, or refuses the messages."""


class ServingError(EdgellmError, RuntimeError):
    """An engine for many requests is closed."""


class QueueFullError(ServingError):
    """As many requests are waiting as may: another one can be made later."""


class BatchError(EdgellmError, RuntimeError):
    """The files of a batch of lines cannot be used."""

    exit_code = 5


class JournalMismatchError(BatchError):
    """The journal beside the output is of another input, package or options."""


class SessionError(EdgellmError, RuntimeError):
    """A session is closed, in use by another call, or of a model that cannot do this."""


class SessionFileError(EdgellmError, ValueError):
    """The file of a saved session cannot be used."""

    exit_code = 3


class SessionNotFoundError(SessionFileError, FileNotFoundError):
    """There is no file at that path."""


class SessionVersionError(SessionFileError):
    """The session was saved by a newer edgellm."""


class SessionMismatchError(SessionFileError):
    """The session is of another model, another tokenizer or another kind of cache."""


class SessionCorruptError(SessionFileError):
    """The file is no saved session, is cut off, or was changed."""


class SessionWriteError(SessionFileError, OSError):
    """The session cannot be saved there: the disk is full, or the path is not writable."""


class ProviderError(EdgellmError, RuntimeError):
    """ONNX Runtime or the device cannot do what was asked."""

    exit_code = 7


class OutOfMemoryError(ProviderError, MemoryError):
    """A call needs more memory than there is. Nothing is lost but the call: smaller ones go on working."""


class MissingDependencyError(EdgellmError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 8


@contextmanager
def system_errors(kind: type[EdgellmError], message: Callable[[OSError], str]) -> Iterator[None]:
    """The system's complaints (too long a name, no permission) as errors of `kind`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, EdgellmError):
            raise
        raise kind(message(error)) from error


def corrupt(why: str, *, or_copy: bool = False) -> PackageCorruptError:
    """The error of a package of which another export makes a sound one. `why`: what is wrong with it, as a clause.
    `or_copy`: the package may have been damaged on its way, so that another copy will do as well."""
    return PackageCorruptError(f"{why}; {'copy or ' * or_copy}export the package again")


def _printable(text: str) -> str:
    """Control characters and lone surrogates as escapes, line ends kept; the middle of very long texts left out."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names that resemble `name`, as text for a message: "did you mean 'llama' or 'gemma2'?" """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + ", ".join(known)
