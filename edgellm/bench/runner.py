"""A benchmark from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from edgellm.bench.cases import plan_cases, threads_text
from edgellm.bench.child import run_in_child
from edgellm.bench.jobs import Job, JobResult
from edgellm.bench.pagecache import drop_pages
from edgellm.bench.results import BenchResult, Load, Loads, PackageFacts, describe_machine
from edgellm.errors import OptionError
from edgellm.inspection.graph_weights import graph_weights
from edgellm.loading import check_task, read_package
from edgellm.models.decoder import Model
from edgellm.ort.library import DeviceChoice
from edgellm.package.manifest import MANIFEST_NAME, KVCacheChoice, Manifest
from edgellm.system.bandwidth import Bandwidth, read_bandwidth
from edgellm.system.cpu import usable_cores

Numbers = int | Sequence[int]
Announce = Callable[[str], None]  # gets a line for a person


def run_bench(
    package: str | PathLike[str],
    *,
    prompt_tokens: Numbers = 128,
    new_tokens: Numbers = 64,
    batch_sizes: Numbers = 1,
    beams: Numbers = 1,
    threads: Numbers | None = None,
    repeats: int = 5,
    loads: int = 3,
    device: DeviceChoice = "auto",
    kv_cache: KVCacheChoice = "auto",
    profile: bool = False,
    progress: Announce = lambda line: None,
) -> BenchResult:
    """Measure every combination of the numbers given: greedy or beam search, random prompts, nothing cached.

    threads: None is every core this process may use. repeats: timed runs of each case, after one to warm up.
    loads: cold and warm loads per thread count. profile: also time what is ONNX Runtime's. kv_cache: as for `load`.
    progress: called with a line for a person before each run.
    Each case runs in a new process, so sys.executable must be a Python. Raises OptionError, InputError where the tokens
    do not fit in the model's context, and what `edgellm.load` raises.
    """
    if repeats < 1 or loads < 0:
        raise OptionError(f"repeats is {repeats} and loads {loads}, expected at least 1 and 0")
    path = Path(package)
    root, manifest = read_package(path)
    check_task(Model, path, manifest)
    cores = usable_cores() if threads is None else threads
    swept = [_several(numbers) for numbers in (prompt_tokens, new_tokens, batch_sizes, beams, cores)]
    cases = plan_cases(*swept, context_length=manifest.context_length)
    jobs = [Job(path, device, case.threads, case, repeats, profile, kv_cache) for case in cases]
    return _measured(root, manifest.loaded_as(kv_cache), jobs, loads, progress)


def _measured(root: Path, manifest: Manifest, jobs: Sequence[Job], loads: int, progress: Announce) -> BenchResult:
    bare = {job.threads: replace(job, case=None, repeats=0, profile=False) for job in jobs}
    files = _files(root, manifest)
    all_loads = [_time_loads(job, files, loads, progress) for job in bare.values()] if loads else []
    answers = [_run(job, f"{i} of {len(jobs)}", progress) for i, job in enumerate(jobs, 1)]
    bandwidths, why_not = _bandwidths(answers[0].device, list(bare), progress)
    return BenchResult(
        machine=describe_machine(answers[0].onnxruntime),
        package=_facts(root, manifest, answers[0].device),
        cases=tuple(answer.result for answer in answers if answer.result is not None),
        loads=tuple(all_loads),
        bandwidths=tuple(bandwidths),
        why_no_bandwidth=why_not,
        energy=answers[0].energy,
    )


def _several(numbers: Numbers) -> Sequence[int]:
    return (numbers,) if isinstance(numbers, int) else tuple(numbers)


def _files(root: Path, manifest: Manifest) -> list[Path]:
    """All files of the package; a directory of another tool's graphs has no manifest."""
    return [root / name for name in (*manifest.files, *[MANIFEST_NAME] * manifest.has_hashes)]


def _time_loads(job: Job, files: Sequence[Path], count: int, progress: Announce) -> Loads:
    """Time cold and warm loads in turn. Only the package's `files` are made cold, not the libraries."""
    cold: list[Load] = []
    warm: list[Load] = []
    why_not = None
    for number in range(1, count + 1):
        progress(f"load {number} of {count}, {threads_text(job.threads)}")
        why_not = drop_pages(files)
        first = run_in_child(job).load
        if why_not is None:
            cold.append(first)
        warm.append(run_in_child(job).load)
    return Loads(job.threads, tuple(cold), tuple(warm), None if cold else why_not)


def _run(job: Job, place: str, progress: Announce) -> JobResult:
    assert job.case is not None
    name = job.case.name
    progress(f"{place}: {name}, warming up")
    return run_in_child(job, lambda number: progress(f"{place}: {name}, run {number} of {job.repeats}"))


def _bandwidths(device: str, counts: Sequence[int], progress: Announce) -> tuple[list[Bandwidth], str | None]:
    if device != "cpu":
        return [], f"read bandwidth is measured for the CPU only, the package ran on {device}"
    found: list[Bandwidth] = []
    for count in counts:
        progress(f"read bandwidth, {threads_text(count)}")
        bandwidth = read_bandwidth(count)
        if isinstance(bandwidth, str):
            return [], bandwidth
        found.append(bandwidth)
    return found, None


def _facts(path: Path, manifest: Manifest, device: str) -> PackageFacts:
    *_, decoder = manifest.graphs.values()
    weights = graph_weights(path / decoder.file)
    return PackageFacts(
        path=path,
        model_type=manifest.model_type,
        precision=manifest.weights.precision,
        scheme=manifest.weights.scheme,
        device=device,
        size_bytes=sum(entry.size for entry in manifest.files.values()),
        parameters=weights.parameters,
        step_weight_bytes=weights.bytes_per_step,
        cache_bytes_per_token=manifest.model.bytes_per_token(),
    )
