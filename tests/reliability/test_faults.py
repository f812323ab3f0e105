"""Packages that change under a loaded model, full disks, too few handles, signals while a command runs."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import changing
import edgellm
from edgellm.errors import OutOfSpaceError, PackageCorruptError, PackageError, SessionWriteError
from edgellm.loading import load_as

EDGELLM = [sys.executable, "-m", "edgellm"]


@pytest.fixture
def package(packages: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packages / "decoder", tmp_path / "place" / "package"))


# A package under a loaded model


def change(how: str, package: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, changing.__file__, how, str(package)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("how", ["removed", "replaced", "files_replaced", "others_changed"])
def test_a_loaded_model_does_not_see_it(package: Path, how: str) -> None:
    ended = change(how, package)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the same\n", "")


def test_weights_changed_in_place_show(package: Path) -> None:
    """They are mapped, not copied, as the limits say: other tokens, or numbers that are none. Nothing crashes, and the
    package is not loaded again."""
    ended = change("weights_overwritten", package)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "others\n", "")
    with pytest.raises(PackageCorruptError, match="was changed after the export"):
        edgellm.load(package)


def test_weights_cut_in_place_end_the_process(package: Path) -> None:
    """The system has nothing to map any more. As the limits say."""
    ended = change("weights_cut", package)
    assert (ended.returncode, ended.stdout) == (-signal.SIGBUS, "")
    with pytest.raises(PackageCorruptError, match="has 0 bytes, its manifest says"):
        edgellm.load(package)


# Disks


def run(*arguments: str | Path, output: str | None = None) -> subprocess.CompletedProcess[str]:
    """The program; its standard output goes to the file `output`."""
    command = [*EDGELLM, *map(str, arguments)]
    if output is None:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)
    with open(output, "w") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, timeout=120)


@pytest.mark.parametrize(
    "command",
    ["--help", "inspect decoder", "generate decoder hello --max-new-tokens 4", "run text-classification encoder a"],
)
def test_output_to_a_full_disk(packages: Path, command: str) -> None:
    words = [str(packages / word) if word in ("decoder", "encoder") else word for word in command.split()]
    ended = run(*words, output="/dev/full")
    assert ended.returncode == OutOfSpaceError.exit_code
    assert ended.stderr == "error: cannot write the output: No space left on device; make room and run it again\n"


def test_a_full_disk_keeps_the_old_files(packages: Path, small_disk: Callable[[str], Path]) -> None:
    """A saved session and a file of predictions: what was there is there, and nothing else."""
    place = small_disk("size=64k")
    (place / "file").write_text("as it was")
    (place / "filling").write_bytes(bytes(56 * 1024))
    data = packages / "labels.csv"
    data.write_text("text,label\n" + "abc,good\nbcd,bad\n" * 200)
    ended = run("eval", packages / "encoder", "--data", data, "--predictions", place / "file")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].endswith("file: predictions cannot be written (No space left on device)")
    ended = run("chat", packages / "decoder", "hello", "--session", place / "file", "--max-new-tokens", "4")
    assert ended.returncode != 0
    with load_as(edgellm.Model, packages / "decoder").session() as session:
        session.prefill("hello" * 20)
        with pytest.raises(SessionWriteError, match="No space left on device; what was there before is unchanged"):
            session.save(place / "file")
    assert sorted(os.listdir(place)) == ["file", "filling"]
    assert (place / "file").read_text() == "as it was"


@pytest.mark.parametrize("name", ["device", "pipe"])
def test_what_is_no_file_is_not_replaced(packages: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    if name == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/null")
    session = load_as(edgellm.Model, packages / "decoder").session()
    with pytest.raises(SessionWriteError, match="it is there, and it is no file"):
        session.save(target)
    assert target.is_fifo() or target.resolve() == Path("/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_package_that_can_only_be_read(packages: Path, small_disk: Callable[[str], Path]) -> None:
    place = small_disk("size=4m")
    package = shutil.copytree(packages / "decoder", place / "package")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    expected = load_as(edgellm.Model, packages / "decoder").generate("hello", max_new_tokens=8).text
    ended = run("generate", package, "hello", "--max-new-tokens", "8")
    assert (ended.returncode, ended.stdout) == (0, expected + "\n")
    ended = run("export", packages / "checkpoints" / "encoder", package, "--force")
    assert (ended.returncode, ended.stdout) == (OutOfSpaceError.exit_code, "")
    assert f"cannot write to {place}: Read-only file system" in ended.stderr
    assert os.listdir(place) == ["package"]


# Handles


def test_too_many_open_files(packages: Path) -> None:
    """In a process that is at its limit a package is not loaded; what is loaded goes on."""
    model = load_as(edgellm.Model, packages / "decoder")
    expected = model.generate("hello", max_new_tokens=8).tokens
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, before[1]))
    try:
        with pytest.raises(PackageError, match="Too many open files"):
            edgellm.load(packages / "encoder")
        assert model.generate("hello", max_new_tokens=8).tokens == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(held[0])
    edgellm.load(packages / "encoder")


def test_an_export_with_too_few_handles(packages: Path, tmp_path: Path) -> None:
    command = (
        f"ulimit -n 6; exec {' '.join(EDGELLM)} export {packages / 'checkpoints' / 'encoder'} {tmp_path / 'package'}"
    )
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Too many open files" in ended.stderr or "too many open files" in ended.stderr
    assert not (tmp_path / "package").exists()


# Signals while a command runs


ENDLESS = "--overflow shift --max-new-tokens 1000000000 --min-new-tokens 1000000000"
LONG_RUNNING = {
    "generate": f"generate decoder hello {ENDLESS}",
    "chat": f"chat decoder-int8 hello {ENDLESS}",
    "bench": "bench decoder --repeats 500",
    "eval": "eval decoder",
    "run": "run text2text-generation encoder-decoder hello --num-beams 64 --max-new-tokens 5000 --min-new-tokens 5000",
}


def wait_until_loaded(child: subprocess.Popen[str], command: str) -> None:
    """Until it has mapped some weights, or says that its own child will."""
    if command == "bench":
        assert child.stderr is not None
        assert child.stderr.readline().startswith("load 1 of")
        return
    while ".onnx.data" not in Path(f"/proc/{child.pid}/maps").read_text():
        assert child.poll() is None
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command",
    ["generate", *(pytest.param(name, marks=pytest.mark.soak) for name in LONG_RUNNING if name != "generate")],
)
def test_a_signal_ends_a_command(packages: Path, command: str, number: signal.Signals) -> None:
    """Sent again and again, at another moment each time: while the model is loaded, while it runs."""
    words = [str(packages / word) if (packages / word).is_dir() else word for word in LONG_RUNNING[command].split()]
    for seconds in (0, 0.1, 0.4):
        with subprocess.Popen([*EDGELLM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            wait_until_loaded(child, command)
            time.sleep(seconds)
            child.send_signal(number)
            _, errors = child.communicate(timeout=30)
        assert child.returncode == 128 + number, errors
        assert errors.splitlines()[-1:] in ([], ["interrupted"]) or command in ("bench", "eval")
        assert "Traceback" not in errors
        assert not [line for line in processes() if str(packages) in line]


def processes() -> list[str]:
    """The command lines of those that run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_text())
    return found
