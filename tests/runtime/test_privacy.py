"""Nothing leaves the device and nothing is left on it: no file written, no socket, no process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys

events = []

def hook(name, arguments):
    if name.startswith(("socket.", "subprocess.", "urllib.")) or name in ("os.system", "os.posix_spawn", "os.fork"):
        events.append([name, str(arguments)])
    if name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        events.append([name, str(arguments)])
    if name in ("os.mkdir", "os.rename", "shutil.copyfile", "tempfile.mkstemp"):
        events.append([name, str(arguments)])

sys.addaudithook(hook)
import edgellm

model = edgellm.load(sys.argv[1])
model.generate("Hello", max_new_tokens=5)
model.generate(["a", "bc"], max_new_tokens=5, num_beams=2)
list(model.stream_chat([{"role": "user", "content": "Hi"}], max_new_tokens=5))
model.score("Hello")
print(json.dumps(events))
"""


def run_in_fresh_home(package: Path, home: Path, prefix: list[str]) -> list[list[str]]:
    places = {name: home / name for name in ("home", "work", "tmp")}
    for place in places.values():
        place.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    environment |= {
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [*prefix, sys.executable, "-c", SCRIPT, str(package)]
    result = subprocess.run(command, cwd=places["work"], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    events: list[list[str]] = json.loads(result.stdout)
    return events


def left_behind(home: Path) -> list[Path]:
    return [path for name in ("home", "work", "tmp") for path in (home / name).rglob("*")]


def test_no_file_and_no_socket(package: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in package.iterdir()}
    assert run_in_fresh_home(package, tmp_path, []) == []
    assert left_behind(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in package.iterdir()} == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_network_system_call(package: Path, tmp_path: Path) -> None:
    """Also what native code does, which the interpreter's audit hooks do not see."""
    trace = tmp_path / "trace"
    run_in_fresh_home(package, tmp_path, ["strace", "-f", "-e", "trace=connect,sendto,bind,listen", "-o", str(trace)])
    calls = [line for line in trace.read_text().splitlines() if "(" in line and "AF_UNIX" not in line]
    assert calls == []
