"""ONNX Runtime in a process of its own, because it may be broken beyond an exception; prints a `Runtime` as JSON.

The home directory is a fresh one, so what telemetry leaves can be seen.
"""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from edgellm.doctor.facts import Runtime
from edgellm.errors import EdgellmError, OptionError
from edgellm.ort.kernels import open_library
from edgellm.ort.library import PROVIDERS, Device, onnxruntime
from edgellm.ort.loaded_graph import LoadedGraph

TIMEOUT_S = 120
GRAPH = Path(__file__).parent.parent / "engines" / "graphs" / "move_rows_float32.onnx"
HOMES = ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


def probe_runtime() -> Runtime:
    """Imports ONNX Runtime and opens a small graph in a new process. Takes about half a second."""
    with tempfile.TemporaryDirectory(prefix="edgellm-doctor-") as home:
        environment = {**os.environ, **dict.fromkeys(HOMES, home), "PYTHONUSERBASE": site.getuserbase()}
        command = [sys.executable, "-m", __name__]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Runtime(None, error=f"it could not be tried: {error}")
        left = tuple(sorted(str(p.relative_to(home)) for p in Path(home).rglob("*") if p.is_file()))
    if done.returncode:
        return Runtime(None, error=_death(done.returncode, done.stderr))
    content = json.loads(done.stdout.splitlines()[-1])
    lists = {name: tuple(content[name]) for name in ("providers", "kernels")}
    return Runtime(**{**content, **lists, "telemetry_files": left})


def _death(status: int, output: str) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"the process that imported it was ended by {name}"
    return (output.strip().splitlines() or [f"exit code {status}"])[-1]


def look() -> Runtime:
    """Try ONNX Runtime in this process."""
    try:
        ort = onnxruntime()
    except EdgellmError as error:
        return Runtime(None, error=str(error.__cause__ or error))
    providers = tuple(ort.get_available_providers())
    has_cuda = PROVIDERS["cuda"] in providers
    kernels, kernels_error = _kernels()
    return Runtime(
        version=str(ort.__version__),
        providers=providers,
        build=str(ort.get_build_info()),
        cuda=str(getattr(ort, "cuda_version", "") or "") if has_cuda else "",
        error=_error("cpu"),
        cuda_error=_error("cuda") if has_cuda else None,
        kernels=kernels,
        kernels_error=kernels_error,
    )


def _kernels() -> tuple[tuple[str, ...], str | None]:
    """The instruction sets of edgellm's kernels, the one that is used first, and what is wrong with them."""
    try:
        found = open_library()
    except EdgellmError as error:
        return (), str(error)
    try:
        return (found.chosen, *(name for name in found.instruction_sets if name != found.chosen)), None
    except OptionError as error:
        return found.instruction_sets, str(error)


def _error(device: Device) -> str | None:
    try:
        LoadedGraph(GRAPH, device, threads=1)
    except EdgellmError as error:
        return str(error)
    return None


if __name__ == "__main__":
    print(json.dumps(asdict(look())))
