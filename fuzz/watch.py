"""What an input may do to a parser: end in one of edgellm's errors, soon, in little memory, inside its directory.

Python's own allocations and those of numpy are counted one by one (tracemalloc); what native libraries allocate is
held by a limit on the process. Opening, listing and changing files shows in Python's audit events.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

from edgellm.errors import EdgellmError
from edgellm_export.checkpoint.patterns import PROGRAM
from fuzz.targets import Files, Target

BYTES_PER_BYTE = 256  # of memory for each byte of input: an empty JSON object of 2 bytes is a dict of 64, parsed twice
SECONDS = 5.0
NATIVE_BYTES = 1 << 30  # of address space, beyond what the process has when the fuzzing begins

MACHINE = ("/sys/devices/system/cpu", "/sys/fs/cgroup", "/proc/self")  # what says how many cores there are
MATCHING = ("-I", "-S", "-c", PROGRAM)  # a process that matches patterns with names, and has its own limit
READING = {"open", "os.listdir", "os.scandir", "glob.glob"}
NEVER = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo",
    "socket.bind", "ctypes.dlopen", "pickle.find_class", "marshal.load", "shutil.rmtree", "shutil.copyfile",
}  # fmt: skip


class Escape(BaseException):
    """Outside the package, too slow, or too large. No parser catches it."""


class Watch:
    """Runs parsers on inputs in the directory `root`. One for each process: audit hooks stay for good."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._prefix = f"{self.root}/"
        self._inside = False
        self._laid_out: Files = {}
        self._code = tuple(os.path.realpath(place) for place in [*filter(None, sys.path), sys.prefix, *MACHINE])
        sys.addaudithook(self._audit)
        tracemalloc.start(1)

    def run(self, target: Target, data: bytes) -> None:
        """Raises Escape, or whatever the parser raises that is not one of edgellm's errors."""
        self._lay_out(target.files(data))
        tracemalloc.reset_peak()
        before, start = tracemalloc.get_traced_memory()[0], time.process_time()
        try:
            self._inside = True
            target.parse(self.root)
        except EdgellmError as error:
            str(error).encode()  # a message that cannot be printed is no message
        finally:
            self._inside = False
        self._check(target, len(data), tracemalloc.get_traced_memory()[1] - before, time.process_time() - start)

    def warm_up(self, target: Target, data: bytes) -> None:
        """One run without limits, for what is imported and made at the first."""
        self._lay_out(target.files(data))
        with contextlib.suppress(Exception):
            target.parse(self.root)

    def stop(self) -> None:
        """No more counting; the hook stays and does nothing."""
        tracemalloc.stop()

    def _lay_out(self, files: Files) -> None:
        """The directory with these files and no others; those of the input before are not written again."""
        for name in self._laid_out.keys() - files.keys():
            (self.root / name).unlink()
        for name, content in files.items():
            if self._laid_out.get(name) != content:
                place = self.root / name
                if "/" in name:
                    place.parent.mkdir(exist_ok=True)
                place.write_bytes(content)
        self._laid_out = files

    def _check(self, target: Target, size: int, memory: int, seconds: float) -> None:
        if memory > target.base_bytes + BYTES_PER_BYTE * size:
            raise Escape(f"{memory} bytes of memory for an input of {size}")
        if seconds > SECONDS:
            raise Escape(f"{seconds:.1f} s for an input of {size} bytes")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._inside or (event not in READING and event not in NEVER):
            return
        if event == "subprocess.Popen" and arguments[1] == [sys.executable, *MATCHING]:
            return
        if event in READING and (isinstance(arguments[0], int) or self._is_ours(arguments)):
            return
        self._inside = False
        raise Escape(f"{event} of {arguments[0]!r}")

    def _is_ours(self, arguments: tuple[Any, ...]) -> bool:
        """Inside the package; or code, which Python imports when it is first needed."""
        path = os.path.abspath(os.fsdecode(arguments[0] or "."))  # there are no links inside
        if f"{path}/".startswith(self._prefix):
            return True
        path = os.path.realpath(path)
        reads = len(arguments) < 3 or not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        return reads and path.startswith(self._code)


def limit_native_memory() -> None:
    """From now on the process gets NATIVE_BYTES of address space and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + NATIVE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
