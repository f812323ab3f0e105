"""Milliseconds per token against the tokens before it, as a picture. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from edgellm.bench.cases import threads_text
from edgellm.bench.results import BenchResult, CaseResult, percentile
from edgellm.errors import MissingDependencyError, OptionError

SUFFIXES = (".png", ".svg")


def check_plot(path: Path, new_tokens: Sequence[int]) -> None:
    """Whether `plot` could draw and write there, before hours of measuring. Raises OptionError or
    MissingDependencyError."""
    if not any(new_tokens):
        raise OptionError("--plot draws the time per token, and there are no new tokens to time; ask for some with -n")
    if path.suffix not in SUFFIXES:
        raise OptionError(f"--plot is {str(path)!r}, expected a name that ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise OptionError(f"--plot is {str(path)!r}: there is no directory {path.parent}")
    _figure_class()


def plot(bench: BenchResult, path: Path) -> None:
    """Write the picture: a line per batch size, beams and threads, a point per case, every step as a faint dot.

    Lines of which a point was disturbed say so in the legend.
    """
    figure = _figure_class()(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    measured = sorted((result for result in bench.cases if result.step_ms), key=_series)
    for series, results in groupby(measured, key=_series):
        of_series = sorted(results, key=_middle)
        noise = " (disturbed)" if any(result.conditions.disturbed for result in of_series) else ""
        _draw(axes, _label(*series) + noise, of_series)
    axes.set_xlabel("tokens in the context")
    axes.set_ylabel("ms per token of a row, median and 10th to 90th percentile")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{bench.package.path.name} ({bench.package.precision}), {bench.machine.processor}")
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise OptionError(f"--plot is {str(path)!r}: it cannot be written ({error.strerror})") from error


def _draw(axes: Any, label: str, results: list[CaseResult]) -> None:
    middle = [percentile(result.step_ms, 50) or 0.0 for result in results]
    below = [m - (percentile(r.step_ms, 10) or 0.0) for m, r in zip(middle, results, strict=True)]
    above = [(percentile(r.step_ms, 90) or 0.0) - m for m, r in zip(middle, results, strict=True)]
    line = axes.errorbar(
        [_middle(result) for result in results], middle, yerr=[below, above], marker="o", capsize=3, label=label
    )
    for result in results:
        length = result.case.prompt_length
        steps = [(length + i, 1000 * s) for repeat in result.repeats for i, s in enumerate(repeat.steps_s, 1)]
        axes.scatter(*zip(*steps, strict=True), s=6, alpha=0.25, color=line[0].get_color(), linewidths=0)


def _series(result: CaseResult) -> tuple[int, int, int]:
    return result.case.threads, result.case.batch_size, result.case.beams


def _label(threads: int, batch_size: int, beams: int) -> str:
    batch = f", batch {batch_size}" if batch_size > 1 else ""
    return f"{threads_text(threads)}{batch}{f', {beams} beams' if beams > 1 else ''}"


def _middle(result: CaseResult) -> float:
    return result.case.prompt_length + result.case.generated / 2


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "--plot needs matplotlib, which is not installed: `pip install edgellm[plot]`"
        ) from error
    return Figure
