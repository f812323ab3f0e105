"""CUDA: worth a line only where there is a GPU or ONNX Runtime's build for one."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.doctor.cuda import DRIVER, is_essential
from edgellm.doctor.facts import Facts, Finding, Severity
from edgellm.ort.library import PROVIDERS

OLDEST_DRIVER = {"12": 525, "13": 580}  # by CUDA's version
LIBRARIES = "`pip install 'onnxruntime-gpu[cuda,cudnn]'` brings them"


def check_cuda(facts: Facts) -> list[Finding]:
    runtime, cuda = facts.runtime, facts.cuda
    gpus = ", ".join(cuda.gpus) or "no GPU"
    if PROVIDERS["cuda"] not in runtime.providers:
        if not cuda.present:
            return [Finding("cuda", "ok", "no NVIDIA GPU, nor ONNX Runtime's build for one")]
        fix = "`pip uninstall onnxruntime`, then `pip install 'edgellm[cuda]'`, for packages with --target cuda"
        return [Finding("cuda", "note", f"{gpus} is not used: this onnxruntime is for the CPU", fix)]
    built = f"ONNX Runtime built for CUDA {runtime.cuda or 'of an unknown version'}"
    works = runtime.cuda_error is None
    what = f"{gpus}, driver {cuda.driver or 'not found'}, {built}: {'runs a graph' if works else 'does not start'}"
    fix = "" if works else _repair_cuda(facts)
    return [Finding("cuda", "ok" if works else "warning", what, fix), *_libraries(facts)]


def _libraries(facts: Facts) -> list[Finding]:
    """The libraries found, and those missing, by what their lack means."""
    libraries = facts.cuda.libraries
    found = [name for name, path in libraries.items() if path is not None]
    findings = [Finding("cuda", "ok", f"found {', '.join(found)}")] if found else []
    missing = [name for name, path in libraries.items() if path is None]
    groups: list[tuple[str, Severity, list[str]]] = [
        ("missing", "warning", [name for name in missing if name == DRIVER]),
        ("missing", "warning", [name for name in missing if is_essential(name) and name != DRIVER]),
        ("missing, and needed by some operators only", "note", [name for name in missing if not is_essential(name)]),
    ]
    for what, severity, names in groups:
        if names:
            findings.append(Finding("cuda", severity, f"{what}: {', '.join(names)}", _where_to_get(names, facts)))
    return findings


def _where_to_get(missing: Sequence[str], facts: Facts) -> str:
    elsewhere = [facts.cuda.elsewhere[name] for name in missing if name in facts.cuda.elsewhere]
    if elsewhere:
        directories = ":".join(dict.fromkeys(path.rpartition("/")[0] for path in elsewhere))
        return f"they lie where the loader does not look: `export LD_LIBRARY_PATH={directories}`"
    if DRIVER in missing:
        return "it is part of NVIDIA's driver; in a container, start it with the host's (`--gpus all`)"
    return LIBRARIES


def _repair_cuda(facts: Facts) -> str:
    cuda, major = facts.cuda, facts.runtime.cuda.partition(".")[0]
    if cuda.hidden:
        return "CUDA_VISIBLE_DEVICES hides every GPU: `unset CUDA_VISIBLE_DEVICES`"
    if not cuda.present:
        return (
            "no NVIDIA driver is to be seen: install it, or start the container with `--gpus all`; without a GPU, "
            "`pip uninstall onnxruntime-gpu`, then `pip install 'edgellm[cpu]'`"
        )
    oldest = OLDEST_DRIVER.get(major)
    if oldest is not None and cuda.driver is not None and int(cuda.driver.partition(".")[0]) < oldest:
        return f"CUDA {major} needs driver {oldest} or newer, this is {cuda.driver}: update NVIDIA's driver"
    missing = [name for name, path in cuda.libraries.items() if path is None and is_essential(name)]
    return "see the missing libraries below" if missing else f"it says: {facts.runtime.cuda_error}"
