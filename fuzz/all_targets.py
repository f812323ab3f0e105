"""All targets one after the other, each a process of its own, and a table of what came of them."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.corpus import CORPUS
from fuzz.targets import TARGETS, Target

LONGEST_INPUT = 1 << 16  # bytes
SECONDS_PER_INPUT = 180  # of time on the clock, after which libFuzzer ends the process
RSS_MB = 1500
FOUND = Path(".cache/fuzz")  # logs, and inputs that were found


@dataclass(frozen=True)
class Outcome:
    """What came of a target. `edges` are the places of edgellm's code that were reached, as atheris counts them,
    `finding` the input that ended the process, or None."""

    target: str
    inputs: int
    seconds: float
    edges: int
    peak_mb: int
    finding: str | None


def fuzz_all(arguments: Sequence[str]) -> int:
    """The exit status: 1 where an input was found that does what it must not."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--runs", type=int, default=int(os.environ.get("FUZZ_RUNS", 1_000_000)), help="inputs in all")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    asked = parser.parse_args(arguments)
    chosen = [TARGETS[name] for name in asked.target or TARGETS]
    shares = sum(target.share for target in chosen)
    print("| target | inputs | per second | edges | peak memory | found |\n|---|---|---|---|---|---|", flush=True)
    outcomes = []
    for target in chosen:
        outcomes.append(_fuzz(target, -(-asked.runs * target.share // shares)))
        print(_row(outcomes[-1]), flush=True)
    total, seconds = sum(o.inputs for o in outcomes), sum(o.seconds for o in outcomes)
    findings = [outcome for outcome in outcomes if outcome.finding]
    print(f"\n{total:,} inputs in {seconds:.0f} s, {len(findings)} found")
    return 1 if findings else 0


def _fuzz(target: Target, runs: int) -> Outcome:
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as new:  # what the run adds to the corpus goes here, and is dropped
        command = [
            sys.executable, "-m", "fuzz", target.name, new, str(CORPUS / target.name), f"-runs={runs}",
            f"-max_len={LONGEST_INPUT}", f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={RSS_MB}",
            "-print_final_stats=1", f"-artifact_prefix={FOUND}/{target.name}-",
        ]  # fmt: skip
        start = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    log = done.stdout.decode(errors="replace")
    (FOUND / f"{target.name}.log").write_text(log)
    return Outcome(
        target=target.name,
        inputs=_number(r"stat::number_of_executed_units: (\d+)", log),
        seconds=time.monotonic() - start,
        edges=_number(r"cov: (\d+)", log),
        peak_mb=_number(r"stat::peak_rss_mb: +(\d+)", log),
        finding=_finding(log, done.returncode),
    )


def _number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def _finding(log: str, status: int) -> str | None:
    """Units that were merely slow are written too; the watch has a limit of its own, which a stopped process keeps."""
    saved = re.findall(r"Test unit written to (\S+)", log)
    return (saved[-1] if saved else f"exit status {status}") if status else None


def _row(o: Outcome) -> str:
    rate = o.inputs / max(o.seconds, 1e-9)
    return f"| {o.target} | {o.inputs:,} | {rate:,.0f} | {o.edges:,} | {o.peak_mb} MiB | {o.finding or 'nothing'} |"
