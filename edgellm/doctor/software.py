"""The Python environment: interpreter, installed distributions."""

from __future__ import annotations

import platform
import re
import struct
import sys
from collections.abc import Iterable
from importlib import metadata

from edgellm.doctor.facts import Interpreter, Requirement

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<wanted>[<>=!~][^;]*)?(?:;\s*extra == ['\"](?P<extra>[^'\"]+)['\"])?")
EXTRAS = ("", "export", "optimum", "plot")  # those of users; cpu and cuda exclude each other
NOT_RUNTIMES = ("onnxruntime-genai", "onnxruntime-extensions", "onnxruntime-tools")


def read_interpreter() -> Interpreter:
    name, version = platform.libc_ver()
    major, minor, micro = sys.version_info[:3]
    return Interpreter(
        version=(major, minor, micro),
        implementation=platform.python_implementation(),
        bits=8 * struct.calcsize("P"),
        system=platform.system(),
        machine=platform.machine(),
        libc=f"{name} {version}".strip(),
    )


def read_requirements() -> tuple[Requirement, ...] | None:
    """The distributions that edgellm asks for; None where it runs from a directory, without metadata."""
    try:
        wanted = metadata.requires("edgellm") or []
    except metadata.PackageNotFoundError:
        return None
    return tuple(requirement for text in wanted if (requirement := parse_requirement(text)) is not None)


def parse_requirement(text: str) -> Requirement | None:
    """A line of metadata as a requirement; None for what is not a plain distribution of one of `EXTRAS`."""
    match = REQUIREMENT.fullmatch(text.strip())
    if match is None or (match["extra"] or "") not in EXTRAS:
        return None
    return Requirement(match["name"], (match["wanted"] or "").strip(), match["extra"] or "", _version(match["name"]))


def read_runtimes(names: Iterable[str] | None = None) -> dict[str, str]:
    """Installed distributions that bring a module `onnxruntime`, with their versions."""
    if names is None:
        names = {str(each.metadata["Name"] or "") for each in metadata.distributions()}
    known = sorted(name.lower().replace("_", "-") for name in names)
    chosen = [name for name in known if name.startswith("onnxruntime") and not name.startswith(NOT_RUNTIMES)]
    return {name: _version(name) or "unknown" for name in chosen}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version such as "2.1.0" is one of ">=2,<3". Only numbers count; other conditions are taken as met."""
    return all(_meets(version, condition.strip()) for condition in wanted.split(",") if condition.strip())


def _meets(version: str, condition: str) -> bool:
    match = re.fullmatch(r"(>=|==|<=|<|>)\s*([\d.]+)", condition)
    if match is None:
        return True
    found, limit = _numbers(version), _numbers(match[2])
    length = max(len(found), len(limit))
    a, b = (each + (0,) * (length - len(each)) for each in (found, limit))
    return {">=": a >= b, "==": a == b, "<=": a <= b, "<": a < b, ">": a > b}[match[1]]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else (0,)
