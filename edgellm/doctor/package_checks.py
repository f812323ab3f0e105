"""Whether a package would run on the machine whose facts are given."""

from __future__ import annotations

from pathlib import Path

from edgellm.doctor.facts import Facts, Finding
from edgellm.errors import PackageError
from edgellm.inspection.contents import CONTEXT
from edgellm.inspection.footprint import Footprint, footprint, size
from edgellm.loading import read_package
from edgellm.ort.library import PROVIDERS
from edgellm.package.files import check_files
from edgellm.package.manifest import Manifest
from edgellm.system.cpu import X86, lacks_vnni


def examine_package(path: Path, facts: Facts) -> list[Finding]:
    """Reads the manifest and the graphs; weights are compared by size, not hashed, and nothing is loaded."""
    try:
        package, manifest = read_package(path)
        check_files(package, manifest, hash_limit=0)
        needed = footprint(package, manifest, min(CONTEXT, manifest.context_length))
    except PackageError as error:
        return [Finding("package", "error", str(error), "")]
    what = f"{package}: {manifest.model_type}, {manifest.weights.precision} for {manifest.target}"
    return [
        Finding("package", "ok", what),
        *check_provider(manifest, facts),
        *check_room(needed, facts),
        *check_instructions(manifest, facts),
    ]


def check_provider(manifest: Manifest, facts: Facts) -> list[Finding]:
    if manifest.target != "cuda":
        return []
    if PROVIDERS["cuda"] not in facts.runtime.providers:
        fix = "see cuda above, or export it again with --target cpu; --device cpu runs it slowly, for checks"
        return [Finding("package", "error", "it was exported for CUDA, and this onnxruntime has no CUDA", fix)]
    if facts.runtime.cuda_error is not None:
        return [Finding("package", "error", "it was exported for CUDA, which does not start", "see cuda above")]
    return []


def check_room(needed: Footprint, facts: Facts) -> list[Finding]:
    free = facts.memory.free
    message = f"takes about {size(needed.total)} of memory at {needed.context} tokens of context"
    if free is None:
        return [Finding("package", "note", f"{message}; how much is free is not known")]
    if needed.total > free:
        fix = "end other programs, export with fewer bits (--precision int8 or int4), or take a smaller model"
        return [Finding("package", "error", f"{message}, {size(free)} are free", fix)]
    if needed.total > 0.8 * free:
        fix = "keep contexts short, or export with --kv-cache int8 or fewer bits"
        return [Finding("package", "warning", f"{message}, {size(free)} are free", fix)]
    return [Finding("package", "ok", f"{message}, {size(free)} are free")]


def check_instructions(manifest: Manifest, facts: Facts) -> list[Finding]:
    """Whether the processor slows down a package whose speed depends on products of integers."""
    flags = facts.processor.flags
    x86 = facts.interpreter.machine.lower() in X86
    if manifest.weights.precision != "int8" or manifest.target == "cuda" or flags is None:
        return []
    if not (x86 and lacks_vnni(flags)):
        return []
    fix = "compare it with --precision int4 and fp32 by `edgellm bench`"
    return [Finding("package", "warning", "int8 weights, and a processor without VNNI: right but slower", fix)]
