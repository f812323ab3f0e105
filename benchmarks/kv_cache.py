"""An int8 key/value cache beside a float one: bytes, prefill and decoding behind long prompts, in turns.

    python benchmarks/kv_cache.py [--precision int8] [--contexts 512,4096] [--rounds 9] [--threads 2]

SmolLM2-135M twice, with the same weights; `make model` first. A decoding round is 32 tokens behind the prompt, whose
cache is kept between rounds; the figure is the median time per token, and the ratio that of the float cache over int8's
of the same round. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import edgellm
import edgellm_export
from decoders import load_decoder
from environments import CACHE

GGUF = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
KINDS = ("float", "int8")
NEW_TOKENS = 32
PREFILL_ROUNDS = 2


@dataclass(frozen=True)
class Row:
    """The figures at one context length, by kind of cache. Ratios are float's time over int8's: the median, both
    ends."""

    context: int
    cache_mib: dict[str, float]
    prefill_s: dict[str, float]
    decode_ms: dict[str, float]
    decode_ratio: tuple[float, float, float]


def packages(precision: str) -> dict[str, edgellm_export.Exported]:
    """Exported anew: what is timed is this code's output."""
    return {
        kind: edgellm_export.export(
            GGUF,
            CACHE / "packages" / f"kv-cache-{precision}-{kind}",
            precision=precision,  # type: ignore[arg-type]
            kv_cache=kind,  # type: ignore[arg-type]
            force=True,
        )
        for kind in KINDS
    }


def prompt(length: int) -> list[int]:
    return [(7 * i) % 40000 + 300 for i in range(length)]


def prefill_seconds(model: edgellm.Model, length: int) -> float:
    model.reset()
    start = time.perf_counter()
    model.generate(prompt(length), max_new_tokens=1, do_sample=False, eos_token_id=[])
    return time.perf_counter() - start


def step_ms(model: edgellm.Model, length: int) -> float:
    """Median time per token. The prompt is cached; the first token, which computes its end anew, is left out."""
    times = [
        time.perf_counter()
        for _ in model.stream(prompt(length), max_new_tokens=NEW_TOKENS + 1, do_sample=False, eos_token_id=[])
    ]
    return 1000 * statistics.median(b - a for a, b in pairwise(times))


def measure(models: dict[str, edgellm.Model], context: int, rounds: int) -> Row:
    prefill = {kind: min(prefill_seconds(models[kind], context) for _ in range(PREFILL_ROUNDS)) for kind in KINDS}
    for kind in KINDS:
        step_ms(models[kind], context)
    steps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(rounds):
        for kind in KINDS if turn % 2 else reversed(KINDS):
            steps[kind].append(step_ms(models[kind], context))
    ratios = [wide / narrow for wide, narrow in zip(steps["float"], steps["int8"], strict=True)]
    return Row(
        context,
        {kind: context * models[kind].info.cache_bytes_per_token / 2**20 for kind in KINDS},
        prefill,
        {kind: statistics.median(steps[kind]) for kind in KINDS},
        (statistics.median(ratios), min(ratios), max(ratios)),
    )


def table(rows: Sequence[Row]) -> str:
    lines = ["| context | cache MiB | prefill s | decode ms per token | float / int8 |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [
            " / ".join(f"{figures[kind]:.{digits}f}" for kind in KINDS)
            for figures, digits in ((row.cache_mib, 1), (row.prefill_s, 2), (row.decode_ms, 2))
        ]
        middle, low, high = row.decode_ratio
        lines.append(f"| {row.context} | {' | '.join(cells)} | {middle:.2f} ({low:.2f}-{high:.2f}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="An int8 key/value cache beside a float one.")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--contexts", default="512,4096")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    exported = packages(arguments.precision)
    divergence = {kind: exported[kind].report.quality.kl_divergence for kind in KINDS}  # type: ignore[union-attr]
    models = {kind: load_decoder(exported[kind].path, threads=arguments.threads) for kind in KINDS}
    rows = [measure(models, int(context), arguments.rounds) for context in arguments.contexts.split(",")]
    print(f"{arguments.precision} weights, {arguments.threads} threads; float / int8 cache in each cell\n")
    print(table(rows))
    print(f"\nKL divergence from the original: {divergence['float']:.5f} / {divergence['int8']:.5f}")
    print(json.dumps({"kl_divergence": divergence, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
