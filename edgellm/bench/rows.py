"""The rows of a report, one per test, with llama-bench's names: pp512 is a prompt, tg64 @ d512 the tokens behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgellm.bench.results import BenchResult, CaseResult, deviation, mean, percentile


@dataclass(frozen=True)
class ReportRow:
    """One test of one case. `seconds` and `tokens_per_s` have a value for each repeat; the `n_depth` tokens that were
    there before are not counted."""

    result: CaseResult
    test: str
    n_prompt: int
    n_gen: int
    n_depth: int
    seconds: list[float]
    tokens_per_s: list[float]
    joules_per_token: float | None


def rows_of(result: CaseResult) -> Iterator[ReportRow]:
    """The tests of a case: the prompt, the new tokens, and both together where there are both."""
    case, repeats = result.case, result.repeats
    prompt, new = case.prompt_tokens, case.new_tokens
    if prompt:
        seconds = [repeat.first_token_s for repeat in repeats]
        rates, joules = result.prefill_tokens_per_s, result.prefill_joules_per_token
        yield ReportRow(result, f"pp{prompt}", prompt, 0, 0, seconds, rates, joules)
    if new:
        depth = f" @ d{prompt}" if prompt else ""
        seconds = [repeat.decode_s for repeat in repeats]
        rates, joules = result.decode_tokens_per_s, result.decode_joules_per_token
        yield ReportRow(result, f"tg{new}{depth}", 0, new, prompt, seconds, rates, joules)
    if prompt and new:
        seconds = [repeat.total_s for repeat in repeats]
        rates, joules = result.total_tokens_per_s, result.total_joules_per_token
        yield ReportRow(result, f"pp{prompt}+tg{new}", prompt, new, 0, seconds, rates, joules)


def records(bench: BenchResult) -> list[dict[str, Any]]:
    """A flat dictionary per row. Names that llama-bench has too mean the same (`n_batch` does not: see `batch_size`).

    Missing values are None. The lists are `samples_ns`, `samples_ts`, `first_token_ms`, `token_ms` and `disturbed`.
    """
    return [_record(bench, row) for result in bench.cases for row in rows_of(result)]


def _record(bench: BenchResult, row: ReportRow) -> dict[str, Any]:
    return {
        **_what(bench, row),
        **_speed(row),
        **_latency(row),
        **_resources(bench, row),
        **_conditions(bench, row.result),
    }


def _what(bench: BenchResult, row: ReportRow) -> dict[str, Any]:
    package, machine, case = bench.package, bench.machine, row.result.case
    return {
        "cpu_info": machine.processor,
        "system": machine.system,
        "python": machine.python,
        "onnxruntime": machine.onnxruntime,
        "model_filename": str(package.path),
        "model_type": model_name(bench),
        "model_size": package.size_bytes,
        "model_n_params": package.parameters,
        "backends": package.device.upper(),
        "n_threads": case.threads,
        "batch_size": case.batch_size,
        "n_beams": case.beams,
        "test": row.test,
        "n_prompt": row.n_prompt,
        "n_gen": row.n_gen,
        "n_depth": row.n_depth,
    }


def model_name(bench: BenchResult) -> str:
    return f"{bench.package.model_type} {bench.package.precision} {bench.package.scheme}"


def _speed(row: ReportRow) -> dict[str, Any]:
    nanoseconds = [1e9 * seconds for seconds in row.seconds]
    return {
        "avg_ns": mean(nanoseconds),
        "stddev_ns": deviation(nanoseconds),
        "avg_ts": mean(row.tokens_per_s),
        "stddev_ts": deviation(row.tokens_per_s),
        "p50_ts": percentile(row.tokens_per_s, 50),
        "samples_ns": nanoseconds,
        "samples_ts": row.tokens_per_s,
    }


def _latency(row: ReportRow) -> dict[str, Any]:
    first = row.result.first_token_ms if row.n_prompt else []
    steps = row.result.step_ms if row.n_gen else []
    return {
        "first_token_ms_p50": percentile(first, 50),
        "first_token_ms_p90": percentile(first, 90),
        "token_ms_p50": percentile(steps, 50),
        "token_ms_p90": percentile(steps, 90),
        "token_ms_p99": percentile(steps, 99),
        "first_token_ms": first,
        "token_ms": steps,
    }


def _resources(bench: BenchResult, row: ReportRow) -> dict[str, Any]:
    result, case = row.result, row.result.case
    loads, bandwidth = bench.loads_with(case.threads), bench.bandwidth_with(case.threads)
    return {
        "cold_load_ms": loads.cold_ms if loads else None,
        "warm_load_ms": loads.warm_ms if loads else None,
        "peak_rss_bytes": result.peak_rss_bytes,
        "import_rss_bytes": result.import_rss_bytes,
        "read_bytes_per_token": result.token_bytes(bench.package) if row.n_gen else None,
        "read_bandwidth_bytes_per_s": bandwidth.bytes_per_s if bandwidth else None,
        "share_of_bandwidth": result.share_of_bandwidth(bench.package, bandwidth) if row.n_gen else None,
        "joules_per_token": row.joules_per_token,
        "outside_onnxruntime": result.outside_onnxruntime if row.n_gen else None,
    }


def _conditions(bench: BenchResult, result: CaseResult) -> dict[str, Any]:
    conditions = result.conditions
    return {
        "other_cpus": conditions.other_cpus,
        "steal_share": conditions.steal_share,
        "frequency_mhz": conditions.frequency_mhz,
        "temperature_c": conditions.temperature_c,
        "load_1min": conditions.load_1min,
        "disturbed": list(disturbed(bench, result)),
    }


def disturbed(bench: BenchResult, result: CaseResult) -> tuple[str, ...]:
    """All that disturbed a row's figures: the runs, and the loads and the bandwidth that they are shown with."""
    loads, bandwidth = bench.loads_with(result.case.threads), bench.bandwidth_with(result.case.threads)
    return (
        *result.conditions.disturbed,
        *(f"load: {reason}" for reason in (loads.disturbed if loads else ())),
        *(f"read bandwidth: {reason}" for reason in (bandwidth.disturbed if bandwidth else ())),
    )
