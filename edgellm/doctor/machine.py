"""The facts of this machine, read once."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgellm.doctor.cuda import read_cuda
from edgellm.doctor.facts import Cpu, Directory, Facts, Limits, Memory, Telemetry, Threads
from edgellm.doctor.probe import probe_runtime
from edgellm.doctor.software import read_interpreter, read_requirements, read_runtimes
from edgellm.system.cgroups import cpu_quota, memory_limit
from edgellm.system.cpu import affinity, processor_name, usable_cores
from edgellm.system.memory import available_memory_bytes, total_memory_bytes
from edgellm.system.sysfs import read_text

TELEMETRY = "ORT_DISABLE_TELEMETRY"
TRACES = (".cache/Microsoft/DeveloperTools/.onnxruntime", "Library/Application Support/Microsoft/DeveloperTools")
IN_MEMORY = ("tmpfs", "ramfs")


def read_facts(environment: Mapping[str, str] = os.environ) -> Facts:
    """Read everything in about half a second: ONNX Runtime is tried in a process of its own. No network is used."""
    runtime = probe_runtime()
    return Facts(
        interpreter=read_interpreter(),
        requirements=read_requirements(),
        runtimes=read_runtimes(),
        runtime=runtime,
        cuda=read_cuda(runtime.cuda),
        processor=read_processor(),
        threads=read_threads(),
        memory=read_memory(),
        places=read_places(environment),
        limits=read_limits(),
        telemetry=Telemetry(environment.get(TELEMETRY), _traces(Path.home())),
    )


def read_processor(root: Path = Path("/")) -> Cpu:
    """The processor and its flags: x86 has a line of flags per CPU in cpuinfo, ARM one of features."""
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    pairs = [(name.strip(), value) for name, colon, value in (line.partition(":") for line in lines) if colon]
    flags = next((frozenset(value.split()) for name, value in pairs if name in ("flags", "Features")), None)
    return Cpu(processor_name(root), flags)


def read_threads(root: Path = Path("/")) -> Threads:
    return Threads(os.cpu_count() or 1, len(affinity()), cpu_quota(root), usable_cores(root))


def read_memory(root: Path = Path("/")) -> Memory:
    limit = memory_limit(root)
    spaces = [each for each in (_rlimit("RLIMIT_AS"), _rlimit("RLIMIT_DATA")) if each is not None]
    return Memory(
        total=total_memory_bytes(root),
        available=available_memory_bytes(root),
        limit=None if limit is None else limit.limit,
        used=0 if limit is None else limit.used,
        address_space=min(spaces, default=None),
    )


def read_places(environment: Mapping[str, str]) -> tuple[Directory, ...]:
    cache = environment.get("HF_HOME") or os.path.join(environment.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    wanted = {
        "working directory": Path.cwd(),
        "temporary files": Path(tempfile.gettempdir()),
        "the hub's cache": Path(os.path.expanduser(cache)),
    }
    return tuple(_place(purpose, path) for purpose, path in wanted.items())


def read_limits() -> Limits:
    return Limits(_rlimit("RLIMIT_FSIZE"), _rlimit("RLIMIT_NOFILE"), _rlimit("RLIMIT_CPU"))


def _place(purpose: str, path: Path) -> Directory:
    """The facts about `path` or, where it is not there yet, about the nearest directory above it that is."""
    there = next(place for place in (path, *path.parents) if place.is_dir())
    device = there.stat().st_dev
    return Directory(
        purpose=purpose,
        path=str(path),
        free=shutil.disk_usage(there).free,
        device=device,
        writable=os.access(there, os.W_OK | os.X_OK),
        in_memory=_file_system(device) in IN_MEMORY,
    )


def _file_system(device: int) -> str:
    """The type of a device's file system, from mountinfo: its third field is the device, the one behind the dash the
    type."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    lines = (read_text(Path("/proc/self/mountinfo")) or "").splitlines()
    return next((line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == wanted), "")


def _traces(home: Path) -> tuple[str, ...]:
    return tuple(str(path) for trace in TRACES if (path := home / trace).exists())


def _rlimit(name: str) -> int | None:
    if platform.system() == "Windows":
        return None
    import resource

    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft
