"""Samples as a table, as a JSON line, and into the README."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import Plan, Samples, decode, medians, prefill, ratio
from systems import OWN, SYSTEMS

README = Path(__file__).resolve().parent / "README.md"
PLACES = {"KL divergence": 4, "top-1 agreement": 3, "load s": 2, "process start to loaded s": 2}
START = ("load s", "process start to loaded s", "peak RSS MiB", "above its imports MiB")


@dataclass(frozen=True)
class Run:
    """What was asked, and what came out."""

    model: str
    title: str
    precision: str
    threads: int
    processor: str
    skipped: tuple[int, ...]
    plan: Plan
    samples: Samples

    @property
    def names(self) -> dict[str, str]:
        """Titles of the systems that gave a figure, edgellm first."""
        return {name: s.titles[self.precision] for name, s in SYSTEMS.items() if name in self.samples.values}


def heading(run: Run) -> str:
    rounds = f"medians of {run.plan.rounds} interleaved rounds"
    if any(run.plan.rounds_of(length) < run.plan.rounds for length in run.plan.lengths):
        rounds += f" ({run.plan.long_rounds} for long prompts)"
    ratios = "; in brackets edgellm's ratio over the peer, lowest to highest round" if OWN in run.names else ""
    what = f"{run.title}, {run.precision}, {run.threads} threads, {run.processor}"
    return f"{what}, {rounds}, {run.plan.new_tokens} new tokens, tokens/s{ratios}."


def table(run: Run) -> str:
    """Markdown: a row per measure, a column per system, and under it what is missing and why."""
    rows = [["", *run.names.values()]]
    rows += [[measure, *(_cell(run.samples, name, measure) for name in run.names)] for measure in _measures(run)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join([*lines, *_several(run), "", *_notes(run)]).rstrip()


def json_line(run: Run) -> str:
    values = run.samples.values
    return json.dumps(
        {
            **{name: value for name, value in vars(run).items() if name not in ("plan", "samples")},
            **asdict(run.plan),
            "systems": {
                name: {
                    "title": title,
                    "medians": medians(run.samples)[name],
                    "edgellm_over_it": _ratios(values, name),
                    "samples": values[name],
                }
                for name, title in run.names.items()
            },
            "failures": run.samples.failures,
        }
    )


def update_readme(run: Run, readme: Path = README) -> None:
    """Put the table between the two comments that are kept for this model and precision."""
    begin, end = (f"<!-- {word} compare {run.model} {run.precision} -->" for word in ("begin", "end"))
    text = readme.read_text()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{readme} has no place for this table: {begin} ... {end}")
    readme.write_text(f"{before}{begin}\n{heading(run)}\n\n{table(run)}\n{end}{after}")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _measures(run: Run) -> list[str]:
    speeds = [name(length) for name in (prefill, decode) for length in run.plan.lengths]
    wanted = ["KL divergence", "top-1 agreement", *speeds, *START]
    return [m for m in wanted if any(m in measures for measures in run.samples.values.values())]


def _cell(samples: Samples, name: str, measure: str) -> str:
    values = samples.values[name].get(measure)
    if not values:
        return "-"
    value = medians(samples)[name][measure]
    text = f"{value:.{PLACES.get(measure, 0 if value >= 100 else 1)}f}"
    own = samples.values.get(OWN, {}).get(measure)
    if own and name != OWN and measure.startswith(("prefill", "decode")):
        middle, lowest, highest = ratio(own, values)
        text += f" ({middle:.2f}x, {lowest:.2f}-{highest:.2f})"
    return text


def _several(run: Run) -> list[str]:
    """edgellm's batch and beams beside its own greedy decoding of one prompt."""
    own, greedy = run.samples.values.get(OWN, {}), decode(run.plan.lengths[0])
    lines = []
    for measure in (f"batch {run.plan.batch}", f"beams {run.plan.beams}"):
        if measure in own:
            middle, lowest, highest = ratio(own[measure], own[greedy])
            speed = medians(run.samples)[OWN][measure]
            lines.append(f"| {measure} | {speed:.0f} | {middle:.2f}x ({lowest:.2f}-{highest:.2f}) |")
    if not lines:
        return []
    title = f"| edgellm after {run.plan.lengths[0]} tokens | tokens/s of all rows or beams | over its own {greedy} |"
    return ["", title, "|---|---|---|", *lines]


def _notes(run: Run) -> list[str]:
    skipped = [f"{length} tokens are skipped: with the answer they exceed the context." for length in run.skipped]
    return skipped + [f"- {what}: {why}" for what, why in run.samples.failures.items()]


def _ratios(values: Mapping[str, Mapping[str, list[float]]], name: str) -> dict[str, list[float]]:
    own = values.get(OWN, {})
    return {m: list(ratio(own[m], samples)) for m, samples in values[name].items() if m in own and 0 not in samples}
