"""Times the public stream: the first piece is time to first token, the gaps between pieces are time per token."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import InputError
from edgellm.model import Model, load
from edgellm.session import DeviceChoice


@dataclass(frozen=True)
class Machine:
    """What the numbers depend on besides the package."""

    processor: str
    logical_cpus: int
    system: str
    python: str
    onnxruntime: str


@dataclass(frozen=True)
class BenchResult:
    """Raw times in milliseconds and what follows from them. Rates are tokens per second at the median time.

    `load_ms` includes importing ONNX Runtime. `time_to_first_token_ms` has a value per run, `time_per_token_ms` one per
    token after the first of each run. `peak_memory_bytes` is the whole process's largest resident size.
    """

    machine: Machine
    device: str
    threads: int
    precision: str
    scheme: str
    package_bytes: int
    prompt_tokens: int
    new_tokens: int
    load_ms: float
    time_to_first_token_ms: list[float]
    time_per_token_ms: list[float]
    time_to_first_token_p50_ms: float
    time_to_first_token_p90_ms: float
    time_per_token_p50_ms: float
    time_per_token_p90_ms: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    peak_memory_bytes: int | None

    def lines(self) -> list[str]:
        """For a person."""
        memory = "unknown" if self.peak_memory_bytes is None else f"{self.peak_memory_bytes / 2**20:.0f} MiB"
        runs = len(self.time_to_first_token_ms)
        return [
            f"machine      {self.machine.processor}, {self.machine.system}, onnxruntime {self.machine.onnxruntime}",
            f"run          {self.device}, {self.threads} threads, {self.precision} ({self.scheme}), "
            f"{self.prompt_tokens} + {self.new_tokens} tokens, {runs} runs",
            f"load         {self.load_ms:.0f} ms",
            f"first token  {self.time_to_first_token_p50_ms:.1f} ms p50, {self.time_to_first_token_p90_ms:.1f} ms p90",
            f"prefill      {self.prefill_tokens_per_s:.1f} tokens/s",
            f"decode       {self.decode_tokens_per_s:.1f} tokens/s, "
            f"{self.time_per_token_p50_ms:.2f} ms p50, {self.time_per_token_p90_ms:.2f} ms p90 per token",
            f"memory       {memory} peak",
        ]


def run_bench(
    package: Path,
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 64,
    repeats: int = 5,
    device: DeviceChoice = "auto",
    threads: int | None = None,
) -> BenchResult:
    """Load `package`, warm up once, then time `repeats` greedy answers to a prompt of which nothing is cached.

    Raises InputError where the tokens do not fit in the model's context, and what `load` raises.
    """
    start = time.perf_counter()
    model = load(package, device=device, threads=threads)
    load_ms = 1000 * (time.perf_counter() - start)
    prompt = _prompt(model, prompt_tokens, new_tokens)
    runs = [_time_stream(model, prompt, new_tokens) for _ in range(repeats + 1)][1:]
    first = [run[0] for run in runs]
    rest = [gap for run in runs for gap in run[1:]]
    info = model.info
    return BenchResult(
        machine=_machine(info.onnxruntime_version),
        device=info.device,
        threads=info.threads,
        precision=info.precision,
        scheme=info.scheme,
        package_bytes=info.package_bytes,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        load_ms=load_ms,
        time_to_first_token_ms=first,
        time_per_token_ms=rest,
        time_to_first_token_p50_ms=_percentile(first, 50),
        time_to_first_token_p90_ms=_percentile(first, 90),
        time_per_token_p50_ms=_percentile(rest, 50),
        time_per_token_p90_ms=_percentile(rest, 90),
        prefill_tokens_per_s=1000 * prompt_tokens / _percentile(first, 50),
        decode_tokens_per_s=1000 / _percentile(rest, 50),
        peak_memory_bytes=peak_memory_bytes(),
    )


def peak_memory_bytes() -> int | None:
    """The largest resident size of this process so far; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _peak_memory_from_usage()
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if peak is None else 1024 * int(peak.split()[1])


def _peak_memory_from_usage() -> int | None:
    """Only where there is no /proc: on Linux this counts what the process was before it became this program."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _prompt(model: Model, prompt_tokens: int, new_tokens: int) -> list[int]:
    """Any ordinary tokens will do: the time does not depend on which they are."""
    if prompt_tokens + new_tokens > model.info.context_length:
        raise InputError(
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones do not fit in the model's context of "
            f"{model.info.context_length}; ask for fewer"
        )
    tokenizer, tokens = model.tokenizer, range(model.info.vocab_size)
    ordinary = [token for token in tokens if tokenizer is None or tokenizer.has_text(token)]
    chosen: list[int] = np.random.default_rng(0).choice(ordinary, prompt_tokens).tolist()
    return chosen


def _time_stream(model: Model, prompt: list[int], new_tokens: int) -> list[float]:
    """[new_tokens] milliseconds: to the first token, then from each to the next."""
    model.reset()
    times = [time.perf_counter()]
    greedy: dict[str, Any] = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "eos_token_id": []}
    for _ in model.stream(prompt, max_new_tokens=new_tokens, **greedy):
        times.append(time.perf_counter())
    return [1000 * (after - before) for before, after in pairwise(times)]


def _percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent)) if values else math.nan


def _machine(onnxruntime: str) -> Machine:
    system = f"{platform.system()} {platform.machine()}"
    return Machine(_processor(), os.cpu_count() or 1, system, platform.python_version(), onnxruntime)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "unknown processor"
