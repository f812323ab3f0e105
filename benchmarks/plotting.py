"""Milliseconds per token against the length of the context, for every system."""

from __future__ import annotations

from pathlib import Path

from measuring import decode, medians, prefill
from rendering import Run


def plot(run: Run, file: Path) -> None:
    """Write a PNG of two panels, prefill and decode. Raises SystemExit without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'edgellm[plot]'") from error

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    middle = medians(run.samples)
    for axes, measure in zip(panels, (prefill, decode), strict=True):
        for name, title in run.names.items():
            points = [(n, 1000 / middle[name][measure(n)]) for n in run.plan.lengths if measure(n) in middle[name]]
            axes.plot(*zip(*points, strict=True), marker="o", label=title) if points else None
        axes.set(xscale="log", yscale="log", xlabel="context, tokens", ylabel="ms per token", title=measure.__name__)
        axes.set_xticks(run.plan.lengths, [str(length) for length in run.plan.lengths])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize="x-small")
        axes.grid(True, which="both", alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.suptitle(f"{run.title}, {run.threads} threads, {run.processor}", fontsize="medium")
    figure.savefig(file, dpi=130)
