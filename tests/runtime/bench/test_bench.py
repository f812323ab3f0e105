"""edgellm bench: what is swept, what is measured, what is printed. No test asserts how fast anything is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgellm
from edgellm.bench import BenchResult, Conditions, Load, run_bench, runner, worker
from edgellm.bench import child as child_module
from edgellm.bench.cases import Case, plan_cases
from edgellm.bench.jobs import Job, JobResult
from edgellm.bench.timing import random_prompts, time_run, timed_graph_runs
from edgellm.cli import cli
from edgellm.errors import ProviderError
from edgellm.package.files import read_manifest
from edgellm.system.sample import Sample

QUIET = Conditions(1.0, 0.0, 0.0, None, None, 0.1, ())


def run(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture(scope="module")
def swept(package: Path) -> tuple[BenchResult, list[str]]:
    lines: list[str] = []
    result = run_bench(
        package, prompt_tokens=[0, 10], new_tokens=5, batch_sizes=[1, 2], beams=[1, 2], threads=1, repeats=2, loads=1,
        profile=True, progress=lines.append,
    )  # fmt: skip
    return result, lines


def test_a_sweep_has_all_cases_and_all_times(swept: tuple[BenchResult, list[str]], package: Path) -> None:
    result, _ = swept
    cases = [each.case for each in result.cases]
    assert cases == list(plan_cases((0, 10), (5,), (1, 2), (1, 2), (1,), context_length=96))
    for each in result.cases:
        assert len(each.repeats) == 2
        assert all(len(repeat.steps_s) == 4 for repeat in each.repeats)
        assert all(second > 0 for repeat in each.repeats for second in (repeat.first_token_s, *repeat.steps_s))
        assert each.outside_onnxruntime is not None
        assert 0 < each.outside_onnxruntime < 1
        assert each.peak_rss_bytes is not None
        assert each.import_rss_bytes is not None
        assert each.peak_rss_bytes >= each.import_rss_bytes > 10 << 20
        assert each.conditions.seconds > 0
    assert result.machine.onnxruntime == edgellm.load(package).info.onnxruntime_version
    (bandwidth,) = result.bandwidths
    assert bandwidth.threads == 1
    (loads,) = result.loads
    assert [load.load_ms > load.import_ms > 0 for load in loads.warm] == [True]
    assert len(loads.cold) == (0 if loads.why_not_cold else 1)


def test_facts_of_the_package(swept: tuple[BenchResult, list[str]], model: edgellm.Model) -> None:
    facts, info = swept[0].package, model.info
    assert (facts.model_type, facts.precision, facts.device) == (info.model_type, info.precision, "cpu")
    assert (facts.size_bytes, facts.cache_bytes_per_token) == (info.package_bytes, info.cache_bytes_per_token)


def test_progress_names_every_run(swept: tuple[BenchResult, list[str]]) -> None:
    _, lines = swept
    assert lines[0] == "load 1 of 1, 1 thread"
    assert "8 of 8: pp10+tg5, batch 2, 2 beams, 1 thread, warming up" in lines
    assert "8 of 8: pp10+tg5, batch 2, 2 beams, 1 thread, run 2 of 2" in lines
    assert lines[-1] == "read bandwidth, 1 thread"


def test_prompts_are_random_and_repeatable(model: edgellm.Model) -> None:
    case = Case(10, 5, 3, 1, 1)
    prompts = random_prompts(model, case)
    assert [len(prompt) for prompt in prompts] == [10, 10, 10]
    assert prompts[0] != prompts[1]
    assert prompts == random_prompts(model, case)


class StepMeter:
    """One joule per reading."""

    source = "steps"

    def __init__(self) -> None:
        self.readings = 0

    def joules(self) -> float:
        self.readings += 1
        return float(self.readings)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("batch_size", "beams"), [(1, 1), (3, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("prompt_tokens", [1, 40])
def test_a_run_is_timed_at_each_token(package: Path, prompt_tokens: int, batch_size: int, beams: int) -> None:
    model = edgellm.load(package, threads=1, prefill_chunk=8)
    case = Case(prompt_tokens, 6, batch_size, beams, 1)
    with timed_graph_runs() as inside:
        repeat = time_run(model, case, random_prompts(model, case), StepMeter(), inside)
    assert len(repeat.steps_s) == 5
    assert repeat.onnxruntime_s is not None
    assert 0 < repeat.onnxruntime_s < repeat.decode_s
    assert (repeat.prefill_joules, repeat.decode_joules) == (1, 1)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_end_tokens_do_not_end_a_run(package: Path, batch_size: int) -> None:
    model = edgellm.load(package, threads=1)
    every_token = replace(model.manifest.tokens, eos=tuple(range(model.manifest.vocab_size)))
    model.manifest = replace(model.manifest, tokens=every_token)
    case = Case(4, 6, batch_size, 1, 1)
    assert len(time_run(model, case, random_prompts(model, case)).steps_s) == 5


def test_the_settings_of_the_package_are_left_out(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = edgellm.load(package, threads=1)
    model.generation_defaults = {"repetition_penalty": 2.0}
    monkeypatch.setattr(worker, "load_as", lambda kind, path, **options: model)
    worker.work(Job(package, "auto", 1, Case(4, 2, 1, 1, 1), repeats=1), print)
    assert model.generation_defaults == {}


def test_a_run_repeats_without_a_cached_prompt(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[None] = []
    monkeypatch.setattr(model, "reset", lambda: resets.append(None))
    case = Case(4, 2, 1, 1, 1)
    time_run(model, case, random_prompts(model, case))
    assert len(resets) == 1


def test_each_case_ran_in_a_process_of_its_own(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start = child_module._start

    def counted(complaints: Any) -> subprocess.Popen[str]:
        process = start(complaints)
        started.append(process.pid)
        return process

    monkeypatch.setattr(child_module, "_start", counted)
    run_bench(package, prompt_tokens=[4, 8], new_tokens=2, repeats=1, loads=1, threads=1)
    assert len(set(started)) == 4  # two loads, two cases
    assert os.getpid() not in started


def test_what_disturbed_a_run_is_in_its_result(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(worker, "take_sample", lambda: Sample(next(seconds), 2, 0.0, steal_s=next(seconds) / 10))
    numbers: list[int] = []
    answer = worker.work(Job(package, "auto", 1, Case(4, 2, 1, 1, 1), repeats=3), numbers.append)
    assert answer.result is not None
    assert numbers == [1, 2, 3]
    assert answer.load.disturbed == ("other virtual machines took 5.0% of the CPUs' time",)
    assert answer.result.conditions.disturbed == answer.load.disturbed
    assert JobResult.from_dict(json.loads(json.dumps(asdict(answer)))) == answer


@pytest.mark.parametrize(
    ("reasons", "cold", "why_not"),
    [(["held", None, "held"], 1, None), (["held"] * 3, 0, "held"), ([None] * 3, 3, None)],
)
def test_only_loads_behind_dropped_pages_are_cold(
    package: Path, monkeypatch: pytest.MonkeyPatch, reasons: list[str | None], cold: int, why_not: str | None
) -> None:
    answer = JobResult(Load(2.0, 1.0), "cpu", "1.31", "no sensor")
    dropped: list[list[Path]] = []
    monkeypatch.setattr(runner, "drop_pages", lambda files: (dropped.append(files), reasons[len(dropped) - 1])[1])
    monkeypatch.setattr(runner, "run_in_child", lambda job: answer)
    loads = runner._time_loads(Job(package, "auto", 1), runner._files(package, read_manifest(package)), 3, print)
    assert (len(loads.cold), len(loads.warm), loads.why_not_cold) == (cold, 3, why_not)
    assert {path.name for path in dropped[0]} == {path.name for path in package.iterdir()}


def test_errors_of_the_measuring_process_keep_their_kind(package: Path) -> None:
    with pytest.raises(ProviderError, match="exported for the CPU"):
        run_bench(package, prompt_tokens=4, new_tokens=2, device="cuda")


def _program(text: str) -> Callable[[Any], subprocess.Popen[str]]:
    def start(complaints: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", text]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=complaints, text=True)

    return start


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; print('noise'); sys.exit('no idea')", "ended with status 1: no idea"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9: .*short of memory"),
        ("pass", "ended with status 0: it said nothing"),
    ],
)
def test_a_measuring_process_that_dies(
    monkeypatch: pytest.MonkeyPatch, package: Path, program: str, message: str
) -> None:
    monkeypatch.setattr(child_module, "_start", _program(program))
    with pytest.raises(ProviderError, match=message):
        child_module.run_in_child(Job(package, "auto", 1), print)


def test_the_measuring_process_ends_with_its_parent(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[str]] = []
    start = child_module._start

    def remembered(complaints: Any) -> subprocess.Popen[str]:
        children.append(start(complaints))
        return children[0]

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child_module, "_start", remembered)
    with pytest.raises(KeyboardInterrupt):
        child_module.run_in_child(Job(package, "auto", 1, Case(4, 80, 1, 1, 1), repeats=1000), interrupt)
    assert children[0].returncode == -signal.SIGKILL
