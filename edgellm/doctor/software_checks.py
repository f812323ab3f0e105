"""Python, the distributions, ONNX Runtime and its telemetry."""

from __future__ import annotations

from edgellm.doctor.facts import Facts, Finding, Requirement
from edgellm.doctor.software import satisfies
from edgellm.ort.library import INSTALL

OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = (2, 28)  # of ONNX Runtime's wheels
KERNELS = "`pip install edgellm-kernels`, or `pip install ./kernels` where edgellm came from its source"
TRY_AGAIN = "`pip install --force-reinstall --no-deps {}`"


def check_python(facts: Facts) -> list[Finding]:
    it = facts.interpreter
    version = ".".join(map(str, it.version))
    libc = f", {it.libc}" if it.libc else ""
    what = f"{version}, {it.implementation}, {it.bits} bits, {it.system} {it.machine}{libc}"
    if it.version[:2] < OLDEST_PYTHON:
        return [Finding("python", "error", what, "edgellm needs Python 3.11 or newer: make a new environment with one")]
    if it.bits < 64:
        return [Finding("python", "error", what, "ONNX Runtime needs 64 bits: install a 64-bit system and Python")]
    if it.implementation != "CPython":
        return [Finding("python", "warning", what, "edgellm is tested with CPython only: use that if something fails")]
    return [Finding("python", "ok", what)]


def check_packages(facts: Facts) -> list[Finding]:
    """Whether the distributions are there that edgellm cannot do without."""
    if facts.requirements is None:
        return [Finding("packages", "note", "edgellm is not installed but run from a directory: versions unknown")]
    needed = [each for each in facts.requirements if not each.extra]
    wrong = [_wrong(each) for each in needed if _wrong(each)]
    if wrong:
        return [Finding("packages", "error", "; ".join(wrong), "`pip install --upgrade edgellm` brings what it needs")]
    return [Finding("packages", "ok", ", ".join(f"{each.name} {each.installed}" for each in needed))]


def check_extras(facts: Facts) -> list[Finding]:
    """Whether the extras' distributions are there: nothing of it concerns a device that only runs packages."""
    findings = []
    requirements = facts.requirements or ()
    for extra in dict.fromkeys(each.extra for each in requirements if each.extra):
        wrong = [_wrong(each) for each in requirements if each.extra == extra and _wrong(each)]
        message = f"{extra}: {'; '.join(wrong) or 'all there'}"
        fix = f"`pip install 'edgellm[{extra}]'`, if it is wanted" if wrong else ""
        findings.append(Finding("extras", "note" if wrong else "ok", message, fix))
    return findings


def check_onnxruntime(facts: Facts) -> list[Finding]:
    runtime = facts.runtime
    if runtime.version is None and not facts.runtimes:
        return [Finding("onnxruntime", "error", "not installed", _how_to_install(facts))]
    named = ", ".join(f"{name} {version}" for name, version in facts.runtimes.items())
    if runtime.error is not None:
        return [Finding("onnxruntime", "error", f"{named} does not work: {runtime.error}", _repair(facts))]
    findings = [Finding("onnxruntime", "ok", f"{runtime.version}, {', '.join(runtime.providers)}")]
    wanted = next((each for each in facts.requirements or () if each.name == "onnxruntime"), None)
    if wanted is not None and not satisfies(runtime.version or "", wanted.wanted):
        message = f"{runtime.version} is older than edgellm is made for ({wanted.wanted})"
        findings.append(Finding("onnxruntime", "error", message, "`pip install --upgrade onnxruntime`"))
    if len(facts.runtimes) > 1:
        message = f"{named} are installed beside each other, and have overwritten each other's files"
        findings.append(Finding("onnxruntime", "warning", message, _one_runtime(facts)))
    return findings


def check_kernels(facts: Facts) -> list[Finding]:
    """Which of edgellm's own kernels run; without them all is computed by ONNX Runtime's, slower."""
    runtime = facts.runtime
    if runtime.version is None:
        return []
    if runtime.kernels and runtime.kernels_error is not None:
        return [Finding("kernels", "error", runtime.kernels_error, "`unset EDGELLM_KERNELS`")]
    if runtime.kernels:
        used, *others = runtime.kernels
        also = f" (this machine also runs {', '.join(others)})" if others else ""
        return [Finding("kernels", "ok", f"edgellm's own, {used}{also}")]
    missing = runtime.kernels_error or "edgellm-kernels is not installed"
    message = f"ONNX Runtime's, which are slower: {missing}"
    return [Finding("kernels", "note", message, KERNELS)]


def check_telemetry(facts: Facts) -> list[Finding]:
    """Whether telemetry is off: in edgellm's processes that was seen, and what other programs do is worth a note."""
    left, others = facts.runtime.telemetry_files, facts.telemetry
    fix = "`export ORT_DISABLE_TELEMETRY=1` in your shell's profile switches it off for other programs too"
    if left:
        message = f"ONNX Runtime left files in a fresh home directory: {', '.join(left)}"
        return [Finding("telemetry", "error", message, f"{fix}; please report it, it should not happen")]
    findings = []
    if facts.runtime.version is not None:
        findings.append(Finding("telemetry", "ok", "off: a session left nothing in a fresh home directory"))
    if others.traces and others.variable != "1":
        message = f"another program has used ONNX Runtime with its telemetry on: {', '.join(others.traces)}"
        findings.append(Finding("telemetry", "note", message, fix))
    return findings or [Finding("telemetry", "ok", "there is no ONNX Runtime that could have any")]


def _wrong(requirement: Requirement) -> str:
    """What is wrong with a requirement; "" where all is well."""
    if requirement.installed is None:
        return f"{requirement.name} is missing"
    if not satisfies(requirement.installed, requirement.wanted):
        return f"{requirement.name} is {requirement.installed}, wanted is {requirement.wanted}"
    return ""


def _how_to_install(facts: Facts) -> str:
    libc = facts.interpreter.libc
    if libc.startswith("musl") or (facts.interpreter.system == "Linux" and not libc):
        return "there is no onnxruntime for musl (Alpine Linux): use a system with glibc, such as Debian"
    if _glibc(libc) is not None and (_glibc(libc) or ()) < OLDEST_GLIBC:
        return f"there is no onnxruntime for {libc}, which is older than 2.28: use a newer system"
    return INSTALL


def _repair(facts: Facts) -> str:
    if len(facts.runtimes) > 1:
        return _one_runtime(facts)
    error = facts.runtime.error or ""
    if "SIGILL" in error:
        return "this processor lacks instructions that ONNX Runtime is built with: use another machine"
    if "GLIBC" in error:
        return f"this system's C library is too old ({facts.interpreter.libc}): use a newer system"
    return TRY_AGAIN.format(next(iter(facts.runtimes), "onnxruntime"))


def _one_runtime(facts: Facts) -> str:
    chosen = "edgellm[cuda]" if facts.cuda.present else "edgellm[cpu]"
    return f"`pip uninstall {' '.join(facts.runtimes)}`, then `pip install '{chosen}'`"


def _glibc(libc: str) -> tuple[int, ...] | None:
    name, _, version = libc.partition(" ")
    return tuple(int(part) for part in version.split(".")) if name == "glibc" and version else None
