"""The journal of a batch: every outcome is in a file beside the output from the moment it is there.

The file is lines, each a CRC-32 in eight hexadecimal digits, a space, and JSON: first what the batch is of, then an
outcome each, in the order in which they came. A line is written with one call to the system and is then the system's: a
killed process loses nothing. For a machine that loses power, the file is synchronized to the disk once a second; each
line for itself would take longer than many a line's answer.

What a kill leaves is a last line that is cut off: it fails its checksum, is taken off, and its work is done again. So
is that of a line that a failing disk has damaged. A batch without errors leaves a journal of two lines behind, which
says that the output is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.bulk.lines import Line, Outcome
from edgellm.bulk.whole import GO_ON, written_whole
from edgellm.errors import BatchError, JournalMismatchError, system_errors

try:
    import fcntl
except ImportError:  # not there on Windows
    fcntl = None  # type: ignore[assignment]

HEAD, VERSION = "edgellm_batch", 1  # the first line's mark, and the format
SYNC_S = 1.0
NONE = -1  # the place of an outcome that is not there
Identity = Mapping[str, Any]


@dataclass(frozen=True)
class Totals:
    """What a journal knows: lines that were `answered`, and those that `failed`."""

    answered: int
    failed: int


class Journal:
    """Not for several threads. `complete`: the output was written, and no line had failed.

    Memory: eight bytes for each line of the input.
    """

    def __init__(self, path: Path, descriptor: int, identity: Identity, lines: int) -> None:
        self.path = path
        self.complete = False
        self._file = descriptor
        self._head = _packed({HEAD: VERSION, **identity})
        self._identity: Identity = json.loads(as_json(identity))  # as it comes back from the file
        self._places = array("q", [NONE]) * lines
        self._failed: set[int] = set()
        self._done = 0
        self._end = self._synced_end = 0  # bytes
        self._synced = time.monotonic()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, identity: Identity, lines: int, *, restart: bool = False) -> Iterator[Journal]:
        """The journal at `path`, which no other process has then, or a new one. identity: what the batch is of, by
        name. restart: forget what is in it. Raises BatchError or JournalMismatchError."""
        with system_errors(BatchError, lambda error: f"the journal {path} cannot be written: {error.strerror}"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _lock(descriptor, path)
            journal = cls(path, descriptor, identity, lines)
            journal._begin(restart)
            try:
                yield journal
            except BaseException:
                if os.fstat(descriptor).st_size <= len(journal._head):  # no outcome is in it
                    path.unlink(missing_ok=True)
                raise
            finally:
                journal.sync()
        finally:
            os.close(descriptor)

    def __contains__(self, number: int) -> bool:
        return self._places[number] != NONE

    @property
    def totals(self) -> Totals:
        return Totals(self._done - len(self._failed), len(self._failed))

    def add(self, outcome: Outcome) -> None:
        """On its way to the disk when this returns."""
        entry = {
            "line": outcome.line.number,
            "status": outcome.status,
            "answer": outcome.answer,
            "error": outcome.error,
        }
        place = self._end
        self._write(_packed(entry))
        self._note(entry, place)

    def outcome(self, line: Line) -> Outcome:
        """What became of a line. Raises BatchError where it was lost since."""
        entry = _unpacked(self._line_at(self._places[line.number])) if line.number in self else None
        if entry is None:
            raise BatchError(f"{self.path} was changed while it was used: {line.place} is lost; run the batch again")
        return Outcome(line, entry["answer"], entry["error"], entry["status"])

    def forget_errors(self) -> None:
        """Lines that failed are then not in it."""
        for number in self._failed:
            self._places[number] = NONE
        self._done -= len(self._failed)
        self._failed.clear()

    def finish(self) -> None:
        """The output is written. Where lines failed, all is kept, for those to be tried again; else the answers are let
        go: first it is said that the output is whole, then a short journal takes the place of the long one."""
        if self._failed:
            return
        note = _packed({"complete": self._done})
        self._write(note)
        with written_whole(self.path) as file:
            file.write(self._head + note)

    def sync(self) -> None:
        """See to it that what was added is on the disk."""
        if self._end > self._synced_end:
            with self._write_errors():
                os.fsync(self._file)
            self._synced, self._synced_end = time.monotonic(), self._end

    def sync_if_due(self) -> None:
        """To be called now and then."""
        if time.monotonic() - self._synced >= SYNC_S:
            self.sync()

    # Reading

    def _begin(self, restart: bool) -> None:
        if restart:
            os.ftruncate(self._file, 0)
        with open(self._file, "rb", closefd=False) as file:
            first = file.readline()
            if self._is_no_loss(first, os.fstat(self._file).st_size):
                os.ftruncate(self._file, 0)
                self._write(self._head)
                return
            self._check_head(first)
            for raw in file:
                if raw.endswith(b"\n"):
                    self._take(raw)
                    self._end += len(raw)
        os.ftruncate(self._file, self._end)

    def _is_no_loss(self, first: bytes, size: int) -> bool:
        """Whether the file has no outcome: it is empty, or has a head alone, even of another batch, or what a kill left
        of this one's."""
        return size == len(first) and (self._head.startswith(first) or HEAD in (_unpacked(first) or ()))

    def _check_head(self, raw: bytes) -> None:
        found = _unpacked(raw)
        if found is None or HEAD not in found:
            raise BatchError(
                f"{self.path} is in the way: it is no journal of a batch, or a damaged one; remove it, or give another "
                "output"
            )
        if found[HEAD] != VERSION:
            raise BatchError(
                f"{self.path} was written by another version of edgellm; go on with that one, or {RESTART}"
            )
        differences = [
            _difference(name, found.get(name), self._identity.get(name))
            for name in sorted({*self._identity, *found} - {HEAD})
            if found.get(name) != self._identity.get(name)
        ]
        if differences:
            raise JournalMismatchError(
                f"{self.path} is of another batch: {'; '.join(differences)}; go on with that one by what it was begun "
                f"with, give another output, or {RESTART}"
            )
        self._end = len(raw)

    def _take(self, raw: bytes) -> None:
        entry = _unpacked(raw)
        if entry is None:  # damaged: its work is done again
            return
        if "complete" in entry:
            self.complete = entry["complete"] == len(self._places)
        else:
            self._note(entry, self._end)

    def _note(self, entry: Mapping[str, Any], place: int) -> None:
        number = entry["line"]
        self._done += number not in self
        self._places[number] = place
        if entry["error"] is None:
            self._failed.discard(number)
        else:
            self._failed.add(number)

    def _line_at(self, place: int) -> bytes:
        parts, size = [], 1 << 16
        while True:
            part = os.pread(self._file, size, place)
            line, end, _ = part.partition(b"\n")
            parts.append(line + end)
            if end or not part:
                return b"".join(parts)
            place += len(part)

    # Writing

    def _write(self, raw: bytes) -> None:
        with self._write_errors():
            written = 0
            while written < len(raw):
                written += os.pwrite(self._file, raw[written:], self._end + written)
        self._end += len(raw)
        self.sync_if_due()

    def _write_errors(self) -> contextlib.AbstractContextManager[None]:
        return system_errors(BatchError, lambda error: f"cannot write {self.path}: {error.strerror}; {GO_ON}")


RESTART = "start anew with --restart, which throws its answers away"


def journal_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.journal")


def _packed(entry: Mapping[str, Any]) -> bytes:
    content = as_json(entry)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _unpacked(raw: bytes) -> dict[str, Any] | None:
    """The content of a line, None where it is not whole."""
    crc, content = raw[:8], raw[9:].removesuffix(b"\n")
    if not raw.endswith(b"\n") or crc != b"%08x" % zlib.crc32(content):
        return None
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def as_json(value: Any) -> bytes:
    """One line of UTF-8. Lone surrogates, which JSON can hold and UTF-8 cannot, are escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str).encode()


def _difference(name: str, there: Any, here: Any) -> str:
    """How a batch and a journal differ: "options: temperature is 0.2 there and 0.7 here"."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return f"the {name} differs ({_short(there)} there, {_short(here)} here)"
    shown = [{key: repr(value) for key, value in side.items()} for side in (there, here)]
    pairs = [(key, *(side.get(key, "not given") for side in shown)) for key in sorted({*there, *here})]
    return f"{name}: {', '.join(f'{key} is {a} there and {b} here' for key, a, b in pairs if a != b)}"


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 40 else repr(value)


def _lock(descriptor: int, path: Path) -> None:
    """Raises BatchError where another process has the journal, or has just taken it away or replaced it."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(path) from error
        except OSError:  # a file system without locks
            return
    if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise _in_use(path)


def _in_use(path: Path) -> BatchError:
    return BatchError(f"another process is at this batch ({path} is in use); wait until it has ended")
