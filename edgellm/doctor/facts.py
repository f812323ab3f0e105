"""What there is to know about a machine and its Python environment, and what a check says of it, as plain values. Sizes
are in bytes; None is "the system does not say"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# "error": edgellm, or the package that was asked about, does not run. "warning": it runs slower than it could, or may
# fail later. "note": good to know.
Severity = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs. `libc` is such as "glibc 2.36", "" where it is not known; `machine` the processor's
    architecture."""

    version: tuple[int, int, int]
    implementation: str
    bits: int
    system: str
    machine: str
    libc: str = ""


@dataclass(frozen=True)
class Requirement:
    """A distribution that edgellm's own metadata asks for: `wanted` is such as ">=1.26", `extra` "" for what edgellm
    cannot do without."""

    name: str
    wanted: str
    extra: str
    installed: str | None


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime as a new process found it. `error` says why it cannot be imported, or cannot run a graph. `cuda` is
    the version of CUDA it was built for, "" for none, `cuda_error` why a graph does not run there; None where it does,
    or where it was not tried. `telemetry_files` are what it left in a fresh home directory. `kernels`: instruction sets
    of edgellm's own that this machine runs, the one that is used first; `kernels_error`: why none is used."""

    version: str | None
    providers: tuple[str, ...] = ()
    build: str = ""
    cuda: str = ""
    error: str | None = None
    cuda_error: str | None = None
    telemetry_files: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    kernels_error: str | None = None


@dataclass(frozen=True)
class Cuda:
    """NVIDIA's driver, by its version, and the GPUs, by their names; `hidden` where CUDA_VISIBLE_DEVICES leaves none.
    `libraries` says where the loader finds each that ONNX Runtime's build needs, `elsewhere` where those lie that it
    does not find."""

    driver: str | None = None
    gpus: tuple[str, ...] = ()
    hidden: bool = False
    libraries: Mapping[str, str | None] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    @property
    def present(self) -> bool:
        """Whether there is anything of NVIDIA's."""
        return self.driver is not None or bool(self.gpus)


@dataclass(frozen=True)
class Cpu:
    """The processor. `flags` are as /proc/cpuinfo names them; None where there is no such file."""

    name: str
    flags: frozenset[str] | None


@dataclass(frozen=True)
class Threads:
    """Hardware threads: the machine has `cpus`, the affinity mask `allowed`, and a control group's quota is worth
    `quota`. edgellm starts `used` threads by itself."""

    cpus: int
    allowed: int
    quota: float | None
    used: int


@dataclass(frozen=True)
class Memory:
    """The machine's memory, and what the system could give now, `available`. The tightest control group has a `limit`,
    of which so much is `used`; `address_space` is the limit of RLIMIT_AS or RLIMIT_DATA."""

    total: int | None
    available: int | None
    limit: int | None = None
    used: int = 0
    address_space: int | None = None

    @property
    def free(self) -> int | None:
        """What this process may still take."""
        bounds = [self.available, None if self.limit is None else max(0, self.limit - self.used), self.address_space]
        return min((bound for bound in bounds if bound is not None), default=None)


@dataclass(frozen=True)
class Directory:
    """A directory that edgellm writes to. Those with the same `device` share their space; what is written to one that
    is `in_memory` takes memory."""

    purpose: str
    path: str
    free: int
    device: int
    writable: bool = True
    in_memory: bool = False


@dataclass(frozen=True)
class Limits:
    """The limits of this process, None where there is none: bytes of a file, open files, seconds of computing."""

    file_size: int | None = None
    open_files: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True)
class Telemetry:
    """ORT_DISABLE_TELEMETRY as the shell has it, and `traces`: files of ONNX Runtime's telemetry that other programs
    left in this home directory."""

    variable: str | None = None
    traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that the checks look at. `requirements` are None where edgellm is not an installed distribution; `runtimes`
    are the installed distributions that bring ONNX Runtime, with their versions."""

    interpreter: Interpreter
    requirements: tuple[Requirement, ...] | None
    runtimes: Mapping[str, str]
    runtime: Runtime
    cuda: Cuda
    processor: Cpu
    threads: Threads
    memory: Memory
    places: tuple[Directory, ...]
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()


@dataclass(frozen=True)
class Finding:
    """One line of `edgellm doctor`. `fix`: what to do, "" where there is nothing to be done."""

    check: str
    severity: Severity
    message: str
    fix: str = ""
