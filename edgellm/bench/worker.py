"""The measuring process: one package opened, one case run, so that its peak memory is nobody else's.

`python -m edgellm.bench.worker` reads a job from stdin and writes lines of JSON to stdout: {"run": n} before each timed
run, then {"answer": ...} or {"error": the class's name, "message": ...}. See `edgellm.bench.child` for the other side.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from edgellm.bench.cases import Case
from edgellm.bench.energy import Meter, open_meter
from edgellm.bench.jobs import Job, JobResult
from edgellm.bench.results import CaseResult, Load
from edgellm.bench.timing import random_prompts, time_run, timed_graph_runs
from edgellm.errors import EdgellmError
from edgellm.loading import load_as
from edgellm.models.decoder import Model
from edgellm.ort.library import onnxruntime
from edgellm.system.disturbance import disturbances, judge
from edgellm.system.memory import peak_memory_bytes, resident_bytes
from edgellm.system.sample import take_sample


def work(job: Job, before_run: Callable[[int], None]) -> JobResult:
    """Raises what `edgellm.load` and the runs raise."""
    before, start = take_sample(), time.perf_counter()
    onnxruntime()
    imported = time.perf_counter()
    bare = resident_bytes()
    model = load_as(Model, job.package, device=job.device, threads=job.threads, kv_cache=job.kv_cache)
    seconds = time.perf_counter() - start
    disturbed = disturbances((before, take_sample()), job.threads)
    loaded = Load(1000 * seconds, 1000 * (imported - start), disturbed)
    meter = open_meter()
    result = None if job.case is None else _measure(model, job, job.case, meter, bare, before_run)
    if isinstance(meter, str):
        energy = meter
    else:
        energy = meter.source
        meter.close()
    return JobResult(loaded, model.info.device, model.info.onnxruntime_version, energy, result)


def _measure(
    model: Model, job: Job, case: Case, meter: Meter | str, bare: int | None, before_run: Callable[[int], None]
) -> CaseResult:
    model.generation_defaults.clear()  # greedy search alone, whatever the package's own settings are
    prompts = random_prompts(model, case)
    time_run(model, case, prompts)
    usable = None if isinstance(meter, str) else meter
    repeats, samples = [], [take_sample()]
    with timed_graph_runs() if job.profile else contextlib.nullcontext() as inside:
        for number in range(1, job.repeats + 1):
            before_run(number)
            repeats.append(time_run(model, case, prompts, usable, inside))
            samples.append(take_sample())
    conditions = judge(samples, [repeat.total_s for repeat in repeats], case.threads)
    return CaseResult(case, tuple(repeats), peak_memory_bytes(), bare, conditions)


def main() -> None:
    """Errors that edgellm raises on purpose are answers; anything else ends the process with a traceback."""
    job = Job.from_dict(json.load(sys.stdin))
    try:
        _write({"answer": asdict(work(job, lambda number: _write({"run": number})))})
    except EdgellmError as error:
        _write({"error": type(error).__name__, "message": str(error)})


def _write(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
