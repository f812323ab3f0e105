"""What `edgellm export --plan` foresees, beside what the export then does: size, peak memory, time, tokens per second.

    python benchmarks/plan.py [--only NAME ...]

Plan, export and `edgellm bench` (after a prompt of 128 tokens) run in processes of their own, one after the other.
SmolLM2 and MiniLM are the checkpoints that `make model` fetches; the others are random weights in real shapes. Prints a
table and one JSON line. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import encoder_checkpoints
from encoder_decoder_checkpoints import SHAPES
from encoder_decoder_checkpoints import write_checkpoint as write_encoder_decoder
from environments import CACHE
from random_checkpoint import QWEN25_05B, write_checkpoint

CHECKPOINTS = CACHE / "checkpoints"
MODELS = CACHE / "models"
HEAD = ("export", "size MiB", "peak memory MiB", "time s", "tokens/s", "prompt tokens/s")


@dataclass(frozen=True)
class Case:
    """A checkpoint to export, which `checkpoint` makes or finds."""

    checkpoint: Callable[[], Path]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A predicted and a measured figure; None where there is no such figure."""

    predicted: float | None
    actual: float | None

    def text(self, digits: int = 0) -> str:
        if self.predicted is None or self.actual is None:
            return ""
        share = self.predicted / self.actual
        return f"{self.predicted:.{digits}f} / {self.actual:.{digits}f} ({share - 1:+.0%})"


def found(path: Path) -> Path:
    if not path.exists():
        raise SystemExit(f"{path} is missing; `make model` fetches it")
    return path


def cases() -> Iterator[tuple[str, Case]]:
    smollm2 = partial(found, MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")
    for precision in ("int8", "int4", "fp32", "fp16"):
        yield f"smollm2-{precision}", Case(smollm2, ("--precision", precision))
    yield "smollm2-int8-no-verify", Case(smollm2, ("--no-verify",))
    yield "smollm2-int8-cache", Case(smollm2, ("--kv-cache", "int8"))
    qwen = partial(write_checkpoint, CHECKPOINTS / "qwen2.5-0.5b-random", QWEN25_05B)
    yield "qwen2.5-0.5b-int8", Case(qwen, ())
    minilm = partial(found, MODELS / "all-minilm-l6-v2")
    bert = partial(encoder_checkpoints.write_checkpoint, CHECKPOINTS / "bert-base-random")
    for name, checkpoint in (("minilm", minilm), ("bert-base", bert)):
        for precision in ("int8", "fp32"):
            yield f"{name}-{precision}", Case(checkpoint, ("--precision", precision))
    for name in ("t5-base", "opus-mt"):
        made = partial(write_encoder_decoder, CHECKPOINTS / f"{name}-random", SHAPES[name])
        yield f"{name}-int8", Case(made, ("--precision", "int8"))


def measure(name: str, case: Case) -> dict[str, Pair]:
    source, out = str(case.checkpoint()), CACHE / "plan" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = _json("export", source, str(out), "--plan", "--force", "--json", *case.options)
    made = _json("export", source, str(out), "--force", "--json", *case.options)["plan"]
    speed = _speeds(out) if plan["prompt_tokens_per_second"] is not None else {}  # bench runs decoders
    return {
        HEAD[1]: _mib(plan["size_bytes"], made["size_bytes"]["actual"]),
        HEAD[2]: _mib(plan["peak_memory_bytes"], made["peak_memory_bytes"]["actual"]),
        HEAD[3]: Pair(plan["seconds"], made["seconds"]["actual"]),
        HEAD[4]: Pair(plan["tokens_per_second"], speed.get("tg")),
        HEAD[5]: Pair(plan["prompt_tokens_per_second"], speed.get("pp")),
    }


def _mib(predicted: float, actual: float | None) -> Pair:
    return Pair(predicted / 2**20, None if actual is None else actual / 2**20)


def _speeds(package: Path) -> Mapping[str, float]:
    """Tokens per second: "pp" of the prompt, "tg" of new tokens."""
    command = ("bench", str(package), "-p", "128", "-n", "32", "-r", "3", "--loads", "0", "-o", "jsonl")
    rows = [json.loads(line) for line in _output(*command).splitlines()]
    return {row["test"][:2]: row["avg_ts"] for row in rows if "+" not in row["test"]}


def _json(*arguments: str) -> Any:
    return json.loads(_output(*arguments))


def _output(*arguments: str) -> str:
    command = [sys.executable, "-m", "edgellm", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of cases")
    only = parser.parse_args().only
    results = {name: measure(name, case) for name, case in cases() if not only or name in only}
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for name, pairs in results.items():
        print(f"| {name} | {' | '.join(pair.text() for pair in pairs.values())} |")
    print(json.dumps({name: {what: vars(pair) for what, pair in row.items()} for name, row in results.items()}))


if __name__ == "__main__":
    main()
