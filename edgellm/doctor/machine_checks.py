"""Processor, threads, memory, disk and the limits of this process."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.doctor.facts import Directory, Facts, Finding
from edgellm.inspection.footprint import size
from edgellm.system.cpu import X86, lacks_vnni

LITTLE_MEMORY = 512 * 2**20  # bytes
NO_MEMORY = 96 * 2**20  # bytes: what Python and ONNX Runtime take by themselves
LITTLE_DISK = 2**30  # bytes
LITTLE_ADDRESS_SPACE = 8 * 2**30  # bytes: weights are mapped, and each thread's stack and arena takes some
FEW_FILES = 64
ARM = ("aarch64", "arm64")


def check_processor(facts: Facts) -> list[Finding]:
    flags, machine = facts.processor.flags, facts.interpreter.machine.lower()
    name = facts.processor.name
    if flags is None:
        return [Finding("processor", "note", f"{name}; the system does not say which instructions it has")]
    if machine in X86:
        return [_x86(name, flags)]
    if machine in ARM:
        return [_arm(name, flags)]
    fix = "edgellm is made for x86-64 and 64-bit ARM; there it is fast"
    return [Finding("processor", "warning", f"{name}, {machine or 'of an unknown kind'}", fix)]


def _x86(name: str, flags: frozenset[str]) -> Finding:
    known = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    message = f"{name}: {', '.join(flag for flag in known if flag in flags) or 'none of ' + ', '.join(known)}"
    if "avx2" not in flags:
        fix = "without AVX2 everything is several times slower: take a smaller model, or another machine"
        return Finding("processor", "warning", f"{message}; no AVX2", fix)
    if lacks_vnni(flags):
        fix = "int8 weights are right but slower here, as edgellm avoids an overflow: compare int4 with `edgellm bench`"
        return Finding("processor", "warning", f"{message}; no VNNI", fix)
    return Finding("processor", "ok", message)


def _arm(name: str, flags: frozenset[str]) -> Finding:
    known = {"asimd": "NEON", "asimddp": "dot products", "i8mm": "i8mm", "sve": "SVE", "bf16": "bf16", "sme": "SME"}
    message = f"{name}: {', '.join(text for flag, text in known.items() if flag in flags) or 'plain'}"
    if "asimddp" not in flags:
        fix = "integer weights are slower than on ARMv8.2 and later: take a small model, compare int8 and int4"
        return Finding("processor", "warning", f"{message}; no dot products of integers", fix)
    return Finding("processor", "ok", message)


def check_threads(facts: Facts) -> list[Finding]:
    threads = facts.threads
    quota = "" if threads.quota is None else f", {threads.quota:g} CPUs by the control group's quota"
    message = f"{threads.used} by default, of {threads.cpus} CPUs, {threads.allowed} in the affinity mask{quota}"
    if threads.quota is not None and threads.quota < 1:
        fix = "less than one CPU stops the process again and again: grant at least one (docker: --cpus 1)"
        return [Finding("threads", "warning", message, fix)]
    if threads.quota is not None and threads.quota < threads.allowed:
        fix = "if more is wanted, grant more (docker: --cpus)"
        return [Finding("threads", "note", message, fix)]
    if threads.allowed < threads.cpus:
        fix = "if that is not intended: look for taskset, numactl, CPUAffinity= or docker's --cpuset-cpus"
        return [Finding("threads", "note", message, fix)]
    return [Finding("threads", "ok", message)]


def check_memory(facts: Facts) -> list[Finding]:
    memory = facts.memory
    if memory.free is None:
        return [Finding("memory", "note", "the system does not say how much there is")]
    limit = "" if memory.limit is None else f", {size(memory.limit)} allowed to the control group"
    total = "" if memory.total is None else f" of {size(memory.total)}"
    findings = [_memory(memory.free, f"{size(memory.free)} free{total}{limit}")]
    if memory.address_space is not None and memory.address_space < LITTLE_ADDRESS_SPACE:
        message = f"the address space is limited to {size(memory.address_space)}, and weights are mapped into it"
        findings.append(Finding("memory", "warning", message, "`ulimit -v unlimited; ulimit -d unlimited`"))
    return findings


def _memory(free: int, message: str) -> Finding:
    if free < NO_MEMORY:
        fix = "end other programs, or raise the container's limit: Python and ONNX Runtime alone take that much"
        return Finding("memory", "error", message, fix)
    if free < LITTLE_MEMORY:
        fix = "enough for small models only: `edgellm doctor PKG` says whether a package fits"
        return Finding("memory", "warning", message, fix)
    return Finding("memory", "ok", message)


def check_disk(facts: Facts) -> list[Finding]:
    """A line for each device, which names the places that share it."""
    groups: dict[int, list[Directory]] = {}
    for place in facts.places:
        groups.setdefault(place.device, []).append(place)
    return [finding for places in groups.values() for finding in _disk(places)]


def _disk(places: Sequence[Directory]) -> list[Finding]:
    free = places[0].free
    kind = " (in memory)" if places[0].in_memory else ""
    names = ", ".join(f"{place.purpose} {place.path}" for place in places)
    fix = "an export needs room for its package, a download for the checkpoint: free some" if free < LITTLE_DISK else ""
    findings = [Finding("disk", "warning" if fix else "ok", f"{size(free)} free{kind}: {names}", fix)]
    for place in places:
        if not place.writable:
            fix = "running packages writes nothing; an export needs another place, or other permissions"
            findings.append(Finding("disk", "note", f"{place.purpose} {place.path} cannot be written to", fix))
    return findings


def check_limits(facts: Facts) -> list[Finding]:
    """The limits of this process, of which most people have never heard: nothing is said unless something is wrong."""
    limits, findings = facts.limits, []
    if limits.file_size is not None:
        message = f"files may have {size(limits.file_size)} at most, and an export may need more"
        findings.append(Finding("limits", "warning", message, "`ulimit -f unlimited`"))
    if limits.open_files is not None and limits.open_files < FEW_FILES:
        message = f"only {limits.open_files} files may be open at a time"
        findings.append(Finding("limits", "warning", message, "`ulimit -n 1024`"))
    if limits.cpu_seconds is not None:
        message = f"the system ends this process after {limits.cpu_seconds} seconds of computing"
        findings.append(Finding("limits", "warning", message, "`ulimit -t unlimited`"))
    return findings
