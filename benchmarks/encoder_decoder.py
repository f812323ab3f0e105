"""Encoder-decoders beside CTranslate2, int8: T5-base's and Marian's shapes, random weights.

    python benchmarks/encoder_decoder.py [--shapes t5-base,opus-mt] [--beams 1,4] [--batch 1] [--source 128]
        [--new-tokens 64] [--rounds 5] [--threads 2]

Both systems are processes of their own with the same weights, given the same sources, the end token ignored; in turns,
in an order that changes. Figures are new tokens of a result per second, encoding the source included: medians, and the
ratio of the same round. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import edgellm_export
from conversion import OFFLINE
from encoder_decoder_checkpoints import SHAPES, write_checkpoint
from environments import CACHE, ENVIRONMENTS, python_of
from measuring import ratio
from systems import System
from workers import PEERS, Start, Worker

OWN, PEER = "edgellm", "ctranslate2"
TITLES = {OWN: "edgellm int8", PEER: "CTranslate2 4.8 int8"}
QUANTIZATION = "int8_float32"


@dataclass(frozen=True)
class Plan:
    beams: tuple[int, ...]
    batch: int
    source: int
    new_tokens: int
    rounds: int
    threads: int


@dataclass(frozen=True)
class Row:
    """One shape with one number of beams. Per system: tokens per second, a value a round; peak RSS so far."""

    shape: str
    beams: int
    tokens_per_s: Mapping[str, Sequence[float]]
    peak_rss_mib: Mapping[str, float]
    encode_s: float  # edgellm's, with the first token


def own_package(name: str, checkpoint: Path) -> Path:
    """Exported anew: what is timed is this code's output."""
    out = CACHE / "encoder_decoder" / name / "edgellm-int8"
    out.parent.mkdir(parents=True, exist_ok=True)
    edgellm_export.export(checkpoint, out, precision="int8", force=True, verify_quality=False)
    return out


def peer_model(name: str, checkpoint: Path) -> Path:
    out = CACHE / "encoder_decoder" / name / f"{PEER}-int8"
    recipe, stamp = json.dumps([ENVIRONMENTS[PEER].requirements, QUANTIZATION]), out.with_name(f"{PEER}.recipe.json")
    if not stamp.is_file() or stamp.read_text() != recipe:
        print(f"converting {name} for {PEER} ...", file=sys.stderr)
        command = [python_of(PEER), str(PEERS / "ct2_convert.py"), str(checkpoint), str(out), QUANTIZATION]
        subprocess.run(command, env=OFFLINE, check=True, stdout=sys.stderr)
        stamp.write_text(recipe)
    return out


def start(system: str, model: Path, plan: Plan) -> Worker:
    worker = {OWN: "own_translator.py", PEER: "ct2_translator.py"}[system]
    found = System(system, worker, lambda model, precision: Path(), {})
    return Start(system, found, model, plan.threads, plan.source + plan.new_tokens).worker()


def measure(name: str, models: Mapping[str, Path], beams: int, plan: Plan) -> Row:
    """A round without a record first."""
    samples: dict[str, list[float]] = {system: [] for system in models}
    peaks, encodes = {}, []
    with closing(start(OWN, models[OWN], plan)) as own, closing(start(PEER, models[PEER], plan)) as peer:
        for turn in range(plan.rounds + 1):
            for worker in (own, peer) if turn % 2 else (peer, own):
                answer = worker.time_several(plan.source, plan.new_tokens, rows=plan.batch, beams=beams)
                peaks[worker.name] = answer["peak_rss_mb"]
                if turn:
                    seconds = answer["first_token_s"] + answer["decode_s"]
                    samples[worker.name].append(plan.batch * plan.new_tokens / seconds)
                    encodes += [answer["first_token_s"]] * (worker is own)
    return Row(name, beams, samples, peaks, statistics.median(encodes))


def table(rows: Sequence[Row]) -> str:
    lines = [
        f"| shape | beams | {TITLES[OWN]} | {TITLES[PEER]} | ratio | peak RSS MiB, {TITLES[OWN]} / {TITLES[PEER]} |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        own, peer = (statistics.median(row.tokens_per_s[system]) for system in (OWN, PEER))
        middle, low, high = ratio(row.tokens_per_s[OWN], row.tokens_per_s[PEER])
        peaks = " / ".join(f"{row.peak_rss_mib[system]:.0f}" for system in (OWN, PEER))
        title = SHAPES[row.shape].title
        lines.append(
            f"| {title} | {row.beams} | {own:.1f} | {peer:.1f} | {middle:.2f}x ({low:.2f}-{high:.2f}) | {peaks} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Encoder-decoders beside CTranslate2, int8.")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--beams", default="1,4")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--source", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="time the package of the last run instead of a new export")
    a = parser.parse_args()
    plan = Plan(tuple(map(int, a.beams.split(","))), a.batch, a.source, a.new_tokens, a.rounds, a.threads)
    rows = []
    for name in a.shapes.split(","):
        checkpoint = write_checkpoint(CACHE / "checkpoints" / f"{name}-random", SHAPES[name])
        package = CACHE / "encoder_decoder" / name / "edgellm-int8"
        models = {
            OWN: package if a.keep and package.is_dir() else own_package(name, checkpoint),
            PEER: peer_model(name, checkpoint),
        }
        rows += [measure(name, models, beams, plan) for beams in plan.beams]
    print(
        f"Source of {plan.source} tokens, {plan.new_tokens} new ones, batch {plan.batch}, {plan.threads} threads, new "
        f"tokens of a result per second, medians of {plan.rounds} interleaved rounds\n"
    )
    print(table(rows))
    print(json.dumps({"plan": asdict(plan), "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
