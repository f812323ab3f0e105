"""What there is to know about a machine and its Python environment, as plain values. Sizes are in bytes; None is
"the system does not say"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Interpreter:
    """`libc`: such as "glibc 2.36"; "" where it is not known. `machine`: the processor's architecture."""

    version: tuple[int, int, int]
    implementation: str
    bits: int
    system: str
    machine: str
    libc: str = ""


@dataclass(frozen=True)
class Requirement:
    """What edgellm's own metadata asks for. `extra`: "" for what it cannot do without. `wanted`: such as ">=1.26"."""

    name: str
    wanted: str
    extra: str
    installed: str | None


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime as a new process found it. `error`: why it cannot be imported, or cannot run a graph.
    `cuda`: the version of CUDA it was built for, "" without. `cuda_error`: why a graph does not run there; None where
    it does, or where it was not tried. `telemetry_files`: what it left in a fresh home directory."""

    version: str | None
    providers: tuple[str, ...] = ()
    build: str = ""
    cuda: str = ""
    error: str | None = None
    cuda_error: str | None = None
    telemetry_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cuda:
    """`driver`: its version. `gpus`: their names. `hidden`: CUDA_VISIBLE_DEVICES leaves none of them. `libraries`:
    where the loader finds each that ONNX Runtime's build needs. `elsewhere`: where those lie that it does not find."""

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
class Processor:
    """`flags`: as /proc/cpuinfo names them; None where there is no such file."""

    name: str
    flags: frozenset[str] | None


@dataclass(frozen=True)
class Threads:
    """`cpus`: hardware threads of the machine; `allowed`: in the affinity mask; `quota`: a control group's, in CPUs;
    `used`: how many threads edgellm starts by itself."""

    cpus: int
    allowed: int
    quota: float | None
    used: int


@dataclass(frozen=True)
class Memory:
    """`available`: what the system could give now. `limit`, `used`: of the tightest control group. `address_space`: the
    limit of RLIMIT_AS or RLIMIT_DATA."""

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
class Place:
    """A directory that edgellm writes to. `device`: places with the same share their space. `in_memory`: what is
    written there takes memory."""

    purpose: str
    path: str
    free: int
    device: int
    writable: bool = True
    in_memory: bool = False


@dataclass(frozen=True)
class Limits:
    """Of this process; None is no limit. `file_size` in bytes, `open_files` a number, `cpu_seconds` of computing."""

    file_size: int | None = None
    open_files: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True)
class Telemetry:
    """`variable`: ORT_DISABLE_TELEMETRY as the shell has it. `traces`: files of ONNX Runtime's telemetry in this home
    directory, which other programs left."""

    variable: str | None = None
    traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """`requirements`: None where edgellm is not an installed distribution. `runtimes`: installed distributions that
    bring ONNX Runtime, with their versions."""

    interpreter: Interpreter
    requirements: tuple[Requirement, ...] | None
    runtimes: Mapping[str, str]
    runtime: Runtime
    cuda: Cuda
    processor: Processor
    threads: Threads
    memory: Memory
    places: tuple[Place, ...]
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()
