"""A report as text: Markdown for people, CSV, JSON and JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from typing import Any

from edgellm.bench.cases import threads_text
from edgellm.bench.results import BenchResult, CaseResult, deviation, mean, percentile
from edgellm.bench.rows import ReportRow, model_name, records, rows_of

Cells = Sequence[str]


def to_json(bench: BenchResult) -> str:
    """One JSON object: what was measured once, and `tests`, the records."""
    return json.dumps(
        {
            "package": str(bench.package.path),
            "machine": asdict(bench.machine),
            "loads": [{**asdict(loads), "cold_ms": loads.cold_ms, "warm_ms": loads.warm_ms} for loads in bench.loads],
            "bandwidths": [{**asdict(each), "method": each.method} for each in bench.bandwidths],
            "why_no_bandwidth": bench.why_no_bandwidth,
            "energy": bench.energy,
            "tests": records(bench),
        }
    )


def to_jsonl(bench: BenchResult) -> str:
    """A record for each test, as one line of JSON."""
    return "\n".join(json.dumps(record) for record in records(bench))


def to_csv(bench: BenchResult) -> str:
    """A record for each test, as one row without the raw times; the reasons of a disturbance are one text."""
    flat = [_flat(record) for record in records(bench)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().rstrip("\n")


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    scalars = {name: value for name, value in record.items() if not isinstance(value, list)}
    return {**scalars, "disturbed": "; ".join(record["disturbed"])}


def to_markdown(bench: BenchResult) -> str:
    """Markdown for people: llama-bench's table, then what it does not have, then remarks."""
    machine = bench.machine
    head = f"{bench.package.path}: {machine.processor}, {machine.system}, onnxruntime {machine.onnxruntime}"
    parts = [head, _speed_table(bench), _latency_table(bench), _loads_table(bench), _remarks(bench)]
    return "\n\n".join(part for part in parts if part)


def _speed_table(bench: BenchResult) -> str:
    package = bench.package
    model = (model_name(bench), _size(package.size_bytes), _count(package.parameters), package.device.upper())
    rows = [row for result in bench.cases for row in rows_of(result)]
    odd = any(row.result.conditions.disturbed for row in rows)
    sizes = [name for name in ("batch_size", "beams") if any(getattr(r.case, name) > 1 for r in bench.cases)]
    header = ["model", "size", "params", "backend", "threads", *(name.split("_")[0] for name in sizes), "test", "t/s"]
    return _table(
        [*header, "t/s p50", *["note"] * odd],
        [
            [
                *model,
                str(row.result.case.threads),
                *(str(getattr(row.result.case, name)) for name in sizes),
                *_speed_cells(row),
                *["disturbed" if row.result.conditions.disturbed else ""] * odd,
            ]
            for row in rows
        ],
        left={"model", "backend", "note"},
    )


def _speed_cells(row: ReportRow) -> Cells:
    rates = row.tokens_per_s
    spread = f"{_number(mean(rates), '.2f')} ± {_number(deviation(rates), '.2f')}"
    return (row.test, spread, _number(percentile(rates, 50), ".2f"))


def _latency_table(bench: BenchResult) -> str:
    """A table with a row for each case; columns without any value are left out."""
    columns: dict[str, Callable[[CaseResult], str]] = {
        "threads": lambda r: str(r.case.threads),
        "batch": lambda r: str(r.case.batch_size),
        "beams": lambda r: str(r.case.beams),
        "prompt": lambda r: str(r.case.prompt_tokens),
        "new": lambda r: str(r.case.new_tokens),
        "first token ms": lambda r: _number(percentile(r.first_token_ms, 50), ".1f"),
        "ms/token p50": lambda r: _number(percentile(r.step_ms, 50), ".2f"),
        "p90": lambda r: _number(percentile(r.step_ms, 90), ".2f"),
        "p99": lambda r: _number(percentile(r.step_ms, 99), ".2f"),
        "read/token": lambda r: _size(r.token_bytes(bench.package)),
        "of bandwidth": lambda r: _number(
            r.share_of_bandwidth(bench.package, bench.bandwidth_with(r.case.threads)), ".0%"
        ),
        "J/token": lambda r: _number(r.decode_joules_per_token, ".3f"),
        "outside ORT": lambda r: _number(r.outside_onnxruntime, ".1%"),
        "peak RSS": lambda r: _size(r.peak_rss_bytes),
        "bare import": lambda r: _size(r.import_rss_bytes),
    }
    cells = {name: [cell(result) for result in bench.cases] for name, cell in columns.items()}
    shown = [name for name, values in cells.items() if any(values)]
    return _table(shown, [[cells[name][i] for name in shown] for i in range(len(bench.cases))])


def _loads_table(bench: BenchResult) -> str:
    counts = list(dict.fromkeys(result.case.threads for result in bench.cases))
    rows = []
    for count in counts:
        loads, bandwidth = bench.loads_with(count), bench.bandwidth_with(count)
        cold, warm = (loads.cold_ms, loads.warm_ms) if loads else (None, None)
        speed = bandwidth.bytes_per_s / 1e9 if bandwidth else None
        rows.append([str(count), _number(cold, ".0f"), _number(warm, ".0f"), _number(speed, ".1f")])
    return _table(["threads", "cold load ms", "warm load ms", "read bandwidth GB/s"], rows)


def _remarks(bench: BenchResult) -> str:
    cold = [f"no cold load: {loads.why_not_cold}" for loads in bench.loads if loads.why_not_cold]
    bandwidth = bench.bandwidths[0].method if bench.bandwidths else f"none, {bench.why_no_bandwidth}"
    lines = [
        *dict.fromkeys(cold),
        f"read bandwidth: {bandwidth}",
        f"energy: {bench.energy}",
        *(f"disturbed: {each.case.name}: {'; '.join(each.conditions.disturbed)}" for each in bench.cases),
        *(f"disturbed: load, {threads_text(each.threads)}: {'; '.join(each.disturbed)}" for each in bench.loads),
        *(
            f"disturbed: read bandwidth, {threads_text(each.threads)}: {'; '.join(each.disturbed)}"
            for each in bench.bandwidths
        ),
    ]
    return "\n".join(f"- {line}" for line in lines if not line.endswith(": "))


def _table(header: Cells, rows: Sequence[Cells], left: Container[str] = ()) -> str:
    """A Markdown table whose columns are also aligned as plain text."""
    widths = [max(len(cells[i]) for cells in (header, *rows)) for i in range(len(header))]
    rule = [
        "-" * width if name in left else "-" * (width - 1) + ":" for name, width in zip(header, widths, strict=True)
    ]
    padded = [
        [
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, name, width in zip(cells, header, widths, strict=True)
        ]
        for cells in (header, rule, *rows)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _size(count: float | None) -> str:
    """Bytes as llama-bench writes them."""
    if count is None:
        return ""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


FORMATS: dict[str, Callable[[BenchResult], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "jsonl": to_jsonl,
}
